"""What a workspace is set to: changed one member at a time, by its own API or by the operator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.store import standing
from service.store.database import Database
from service.store.sealing import SealingError
from service.store.tables import Workspace
from service.store.workspace_changes import PHALA_KEY, PHALA_SECRET, told

SETTABLE: Final = frozenset(
    {
        "name",
        "allow_without_approval",
        "submit_scope",
        "cancel_scope",
        "release_scope",
        "cancel_own_only",
        "deadline_seconds",
        "run_deadline_seconds",
        "commit_policy",
        "parallel_commits",
        "event_retention_days",
        "delivery_retention_days",
    }
)
"""Columns that ``Changes`` may name."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be set; what is ``None`` or left out stays as it is.

    Attributes:
        columns: values of ``SETTABLE`` columns, in their stored form.
        phala_webhook_secrets: all of them from now on.
        phala_base_url: for operators only: whoever sets it learns the Phala API key.
    """

    columns: Mapping[str, Any] = field(default_factory=dict)
    phala_api_key: SecretStr | None = None
    phala_webhook_secrets: Sequence[SecretStr] | None = None
    phala_base_url: str | None = None


def change(database: Database, workspace_id: str, changes: Changes, actor: Actor) -> None:
    """Set what is told, and tell it in the audit log.

    Raises:
        ValueError, sqlalchemy.exc.NoResultFound: as ``write``.
    """
    with database.transaction() as session, told(database, session, workspace_id, actor):
        write(database, session, workspace_id, changes)


def write(database: Database, session: Session, workspace_id: str, changes: Changes) -> None:
    """Set what is told, inside of ``told``. What waits for a Phala API key that works is looked at again at once.

    Raises:
        ValueError: a column is not settable.
        sqlalchemy.exc.NoResultFound: there is no such workspace.
    """
    unknown = sorted(set(changes.columns) - SETTABLE)
    if unknown:
        raise ValueError(f"not to be set: {', '.join(unknown)}")
    row = session.scalars(select(Workspace).where(Workspace.id == workspace_id).with_for_update(key_share=True)).one()
    for column, value in changes.columns.items():
        setattr(row, column, value)
    if _set_account(database, row, changes):
        session.flush()
        standing.forget_key_faults(session, workspace_id)
    if changes.phala_webhook_secrets is not None:
        _set_webhook_secrets(database, row, changes.phala_webhook_secrets)
    session.flush()


def _set_account(database: Database, row: Workspace, changes: Changes) -> bool:
    """Whether Phala Cloud is another account from now on."""
    url, key = changes.phala_base_url, changes.phala_api_key
    moved = url is not None and url != row.phala_base_url
    renewed = key is not None and _opened(database, row) != key.get_secret_value()
    if url is not None:
        row.phala_base_url = url
    if key is not None:
        row.phala_api_key_sealed = database.sealer.seal(key, purpose=PHALA_KEY, row_id=row.id)
    if moved or renewed:
        # Not now(), which is when the transaction began: a look with the old key may have begun since.
        row.phala_api_key_set_at = func.clock_timestamp()
    return moved or renewed


def _opened(database: Database, row: Workspace) -> str | None:
    if not row.phala_api_key_sealed:
        return None
    try:
        return database.sealer.open(row.phala_api_key_sealed, purpose=PHALA_KEY, row_id=row.id).get_secret_value()
    except SealingError:
        return None  # it is lost anyway


def _set_webhook_secrets(database: Database, row: Workspace, secrets: Sequence[SecretStr]) -> None:
    sealed = [database.sealer.seal(secret, purpose=PHALA_SECRET, row_id=row.id) for secret in secrets]
    row.phala_webhook_secrets_sealed = sealed
    row.phala_webhook_secrets_set_at = func.now() if sealed else None
