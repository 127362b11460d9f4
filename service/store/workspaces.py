"""Tenants: created and replaced from the workspace file, looked up, and their secrets opened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.domain.gates import CommitPolicy
from service.domain.workspaces import DEADLINE, RUN_DEADLINE
from service.store import workspace_settings
from service.store.database import Database, Prepared
from service.store.locks import lock_name
from service.store.tables import ExternalApp, RegisteredSafe, Workspace, WorkspaceFault
from service.store.webhook_file import apply_file, hold
from service.store.workspace_changes import PHALA_KEY, PHALA_SECRET, told
from service.store.workspace_settings import Changes


class WorkspaceExists(Exception):
    """The slug is taken."""

    def __init__(self, slug: str) -> None:
        super().__init__(f"there is a workspace {slug} already")


class WorkspaceUnknown(Exception):
    """No workspace has the slug."""

    def __init__(self, slug: str) -> None:
        super().__init__(f"there is no workspace {slug}: create it with `countersign workspace create` or `apply`")


@dataclass(frozen=True, slots=True)
class WorkspaceSpec:
    """What an operator says about a workspace. Addresses checksummed, deadlines in seconds.

    Attributes:
        more: other columns to be set, see ``workspace_settings.Changes``; those left out stay as they are.
    """

    slug: str
    phala_base_url: str
    phala_api_key: SecretStr
    safes: Sequence[tuple[int, str]]
    external_apps: Sequence[tuple[int, str]] = ()
    allow_without_approval: bool = False
    deadline_seconds: int = DEADLINE
    run_deadline_seconds: int = RUN_DEADLINE
    commit_policy: CommitPolicy = CommitPolicy.AUTO
    parallel_commits: int = 1
    webhooks: Sequence[tuple[str, SecretStr]] = ()
    phala_webhook_secrets: Sequence[SecretStr] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PhalaAccount:
    """Where and as whom a workspace speaks to Phala Cloud.

    Attributes:
        key_set_at: when the key was set.
        faults: subjects of what was found wrong with the key, see ``service.store.standing``.
    """

    base_url: str
    api_key: SecretStr
    key_set_at: datetime
    faults: frozenset[str] = frozenset()


def save(database: Database, spec: WorkspaceSpec, actor: Actor) -> str:
    """Create or replace a workspace's settings by its slug; its id."""
    columns = {
        "allow_without_approval": spec.allow_without_approval,
        "deadline_seconds": spec.deadline_seconds,
        "run_deadline_seconds": spec.run_deadline_seconds,
        "commit_policy": spec.commit_policy.value,
        "parallel_commits": spec.parallel_commits,
        **spec.more,
    }
    changes = Changes(columns, spec.phala_api_key, spec.phala_webhook_secrets, spec.phala_base_url)
    with database.transaction() as session:
        # Processes that start together must not each think of an id.
        lock_name(session, f"workspace:{spec.slug}")
        known = session.scalar(select(Workspace.id).where(Workspace.slug == spec.slug))
        workspace_id = known or database.new_id("ws")
        endpoints = hold(session, workspace_id)
        with told(database, session, workspace_id, actor):
            if known is None:
                _add(session, workspace_id, spec.slug, spec.phala_base_url)
            workspace_settings.write(database, session, workspace_id, changes)
            _replace(session, RegisteredSafe, workspace_id, spec.safes)
            _replace(session, ExternalApp, workspace_id, spec.external_apps)
        apply_file(database, session, workspace_id, endpoints, spec.webhooks, actor)
        return workspace_id


def create(database: Database, slug: str, phala_base_url: str, changes: Changes, actor: Actor) -> str:
    """Create a workspace, with a Phala API key among its settings; its id.

    Raises:
        WorkspaceExists: see there.
    """
    workspace_id = database.new_id("ws")
    with database.transaction() as session:
        lock_name(session, f"workspace:{slug}")
        if session.scalar(select(Workspace.id).where(Workspace.slug == slug)) is not None:
            raise WorkspaceExists(slug)
        with told(database, session, workspace_id, actor):
            _add(session, workspace_id, slug, phala_base_url)
            workspace_settings.write(database, session, workspace_id, changes)
        return workspace_id


def _add(session: Session, workspace_id: str, slug: str, phala_base_url: str) -> None:
    """A row without secrets, which this transaction gives it."""
    session.add(Workspace(id=workspace_id, slug=slug, phala_base_url=phala_base_url, phala_api_key_sealed=b""))
    session.flush()


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


def named(database: Database, slug: str) -> str:
    """The id of the workspace with a slug.

    Raises:
        WorkspaceUnknown: see there.
    """
    found = id_of(database, slug)
    if found is None:
        raise WorkspaceUnknown(slug)
    return found


def listing(session: Session) -> Sequence[Workspace]:
    """All workspaces, by slug."""
    return session.scalars(select(Workspace).order_by(Workspace.slug)).all()


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
    rows = database.look(_PHALA_ACCOUNT, {"workspace": workspace_id})
    if not rows:
        raise NoResultFound(f"there is no workspace {workspace_id}")
    ((base_url, sealed, key_set_at, subjects),) = rows
    key = database.sealer.open(sealed, purpose=PHALA_KEY, row_id=workspace_id)
    return PhalaAccount(base_url, key, key_set_at, frozenset(subjects))


_PHALA_ACCOUNT: Final = Prepared.of(
    select(
        Workspace.phala_base_url,
        Workspace.phala_api_key_sealed,
        Workspace.phala_api_key_set_at,
        func.array(select(WorkspaceFault.subject).where(WorkspaceFault.workspace_id == Workspace.id).scalar_subquery()),
    ).where(Workspace.id == bindparam("workspace"))
)
