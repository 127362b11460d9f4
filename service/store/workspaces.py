"""Tenants: their keys, Safes, declared apps and webhook endpoints."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.store.database import Database
from service.store.locks import lock_name
from service.store.tables import ExternalApp, RegisteredSafe, Workspace
from service.store.webhook_file import apply_file, hold
from service.store.workspace_changes import PHALA_KEY, PHALA_SECRET, told


@dataclass(frozen=True, slots=True)
class WorkspaceSpec:
    """What an operator says about a workspace. Addresses checksummed, deadlines in seconds."""

    slug: str
    phala_base_url: str
    phala_api_key: SecretStr
    safes: Sequence[tuple[int, str]]
    external_apps: Sequence[tuple[int, str]] = ()
    allow_without_approval: bool = False
    deadline_seconds: int = 30 * 86400
    run_deadline_seconds: int = 3600
    webhooks: Sequence[tuple[str, SecretStr]] = ()
    phala_webhook_secrets: Sequence[SecretStr] = ()


@dataclass(frozen=True, slots=True)
class PhalaAccount:
    """Where and as whom a workspace speaks to Phala Cloud."""

    base_url: str
    api_key: SecretStr


def save(database: Database, spec: WorkspaceSpec, actor: Actor) -> str:
    """Create or replace a workspace's settings by its slug; its id."""
    with database.transaction() as session:
        # Processes that start together must not each think of an id.
        lock_name(session, f"workspace:{spec.slug}")
        workspace_id = session.scalar(select(Workspace.id).where(Workspace.slug == spec.slug)) or database.new_id("ws")
        endpoints = hold(session, workspace_id)
        with told(database, session, workspace_id, actor):
            _write(database, session, workspace_id, spec)
        apply_file(database, session, workspace_id, endpoints, spec.webhooks, actor)
        return workspace_id


def _write(database: Database, session: Session, workspace_id: str, spec: WorkspaceSpec) -> None:
    sealed = database.sealer.seal(spec.phala_api_key, purpose=PHALA_KEY, row_id=workspace_id)
    values = {
        "phala_base_url": spec.phala_base_url,
        "phala_api_key_sealed": sealed,
        "phala_webhook_secrets_sealed": [
            database.sealer.seal(secret, purpose=PHALA_SECRET, row_id=workspace_id)
            for secret in spec.phala_webhook_secrets
        ],
        "allow_without_approval": spec.allow_without_approval,
        "deadline_seconds": spec.deadline_seconds,
        "run_deadline_seconds": spec.run_deadline_seconds,
    }
    statement = insert(Workspace).values(id=workspace_id, slug=spec.slug, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["slug"], set_=values))
    _replace(session, RegisteredSafe, workspace_id, spec.safes)
    _replace(session, ExternalApp, workspace_id, spec.external_apps)


def _replace(
    session: Session,
    table: type[RegisteredSafe] | type[ExternalApp],
    workspace_id: str,
    addresses: Sequence[tuple[int, str]],
) -> None:
    session.execute(delete(table).where(table.workspace_id == workspace_id))
    for chain_id, address in dict.fromkeys(addresses):
        session.add(table(workspace_id=workspace_id, chain_id=chain_id, address=address))


def id_of(database: Database, slug: str) -> str | None:
    """The workspace with a slug."""
    with database.transaction() as session:
        return session.scalar(select(Workspace.id).where(Workspace.slug == slug))


def phala_webhook_secrets(database: Database, slug: str) -> tuple[str, Sequence[SecretStr]] | None:
    """Id of a workspace and the secrets with which Phala Cloud may sign what it sends to it.

    Raises:
        SealingError: a secret does not open.
    """
    with database.transaction() as session:
        row = session.scalars(select(Workspace).where(Workspace.slug == slug)).one_or_none()
    if row is None:
        return None
    opened = [
        database.sealer.open(sealed, purpose=PHALA_SECRET, row_id=row.id) for sealed in row.phala_webhook_secrets_sealed
    ]
    return row.id, opened


def phala_account(database: Database, workspace_id: str) -> PhalaAccount:
    """Address and key for Phala Cloud.

    Raises:
        SealingError: the key does not open.
        sqlalchemy.exc.NoResultFound: there is no such workspace.
    """
    with database.reads() as session:
        row = session.get_one(Workspace, workspace_id)
        key = database.sealer.open(row.phala_api_key_sealed, purpose=PHALA_KEY, row_id=workspace_id)
        return PhalaAccount(row.phala_base_url, key)
