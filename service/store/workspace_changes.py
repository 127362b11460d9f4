"""Changes of a workspace's settings, as the audit log tells them: what from and what to, of secrets only that."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Table, select
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.domain.acts import Act
from service.store import acts
from service.store.columns import Base
from service.store.database import Database
from service.store.sealing import SealingError
from service.store.tables import ExternalApp, RegisteredSafe, Workspace

PHALA_KEY: Final = "phala_api_key"
PHALA_SECRET: Final = "phala_webhook_secret"  # noqa: S105 - the name of a column
_SECRETS: Final[Mapping[str, tuple[str, str]]] = {
    "phala_api_key": ("phala_api_key_sealed", PHALA_KEY),
    "phala_webhook_secrets": ("phala_webhook_secrets_sealed", PHALA_SECRET),
}
"""Secret settings: their column, and what it was sealed for."""
_NO_SETTINGS: Final = frozenset({"id", "slug", "created_at"})
_TABLE: Final[Table] = Base.metadata.tables[Workspace.__tablename__]
_PLAIN: Final = [column for column in _TABLE.c if column.name not in _NO_SETTINGS and "_sealed" not in column.name]


@contextmanager
def told(database: Database, session: Session, workspace_id: str, actor: Actor) -> Iterator[None]:
    """Append an act about what the block changes of a workspace that the caller holds, or that it makes.

    Nothing is appended when everything is as before.
    """
    before = _settings(database, session, workspace_id)
    yield
    session.flush()
    after = _settings(database, session, workspace_id)
    if after is None or before == after:
        return
    known = before or {}
    changes = {name: _change(name, known.get(name), value) for name, value in after.items() if known.get(name) != value}
    slug = session.scalars(select(Workspace.slug).where(Workspace.id == workspace_id)).one()
    act = Act.WORKSPACE_CREATED if before is None else Act.WORKSPACE_UPDATED
    data = {"workspace": {"id": workspace_id, "slug": slug}, "changes": changes}
    acts.append(database, session, workspace_id, act, actor=actor, data=data)


def _change(name: str, before: Any, after: Any) -> object:  # noqa: ANN401 - whatever a setting is
    return "changed" if name in _SECRETS else {"from": before, "to": after}


def _settings(database: Database, session: Session, workspace_id: str) -> dict[str, Any] | None:
    """Every setting; a secret as a fingerprint that goes no further than this comparison."""
    row = session.execute(select(_TABLE).where(_TABLE.c.id == workspace_id)).mappings().one_or_none()
    if row is None:
        return None
    plain = {column.name: _plain(row[column.name]) for column in _PLAIN}
    secrets = {
        name: _fingerprints(database, workspace_id, purpose, row[column])
        for name, (column, purpose) in _SECRETS.items()
    }
    return {
        **plain,
        **secrets,
        "safes": _addresses(session, RegisteredSafe, workspace_id),
        "external_apps": _addresses(session, ExternalApp, workspace_id),
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a column holds
    return value.isoformat() if isinstance(value, datetime) else value


def _fingerprints(
    database: Database, workspace_id: str, purpose: str, sealed: bytes | list[bytes]
) -> tuple[bytes | None, ...]:
    """One for each secret; ``None`` for one that does not open, which is never the same as another."""

    def one(value: bytes) -> bytes | None:
        try:
            opened = database.sealer.open(value, purpose=purpose, row_id=workspace_id)
        except SealingError:
            return None
        return database.sealer.fingerprint(opened)

    return tuple(one(value) for value in (sealed if isinstance(sealed, list) else [sealed]))


def _addresses(session: Session, table: type[RegisteredSafe] | type[ExternalApp], workspace_id: str) -> list[str]:
    query = select(table.chain_id, table.address).where(table.workspace_id == workspace_id)
    return [
        f"{chain_id}:{address}" for chain_id, address in session.execute(query.order_by(table.chain_id, table.address))
    ]
