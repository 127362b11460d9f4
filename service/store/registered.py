"""The Safes and external apps of a workspace."""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.domain.workspaces import MOST_REGISTERED, safe_subject
from service.store import standing
from service.store.database import Database
from service.store.tables import ExternalApp, RegisteredSafe
from service.store.workspace_changes import told

Kind = type[RegisteredSafe] | type[ExternalApp]
Contract = TypeVar("Contract", RegisteredSafe, ExternalApp)


class TooManyRegistered(Exception):
    """The workspace has as many of the kind as it may."""

    def __init__(self) -> None:
        super().__init__(f"the workspace has {MOST_REGISTERED} of these already: remove one first")


def listing(session: Session, workspace_id: str, kind: type[Contract]) -> Sequence[Contract]:
    """What a workspace has of a kind, by chain and address."""
    return session.scalars(
        select(kind).where(kind.workspace_id == workspace_id).order_by(kind.chain_id, kind.address)
    ).all()


def add(
    database: Database, workspace_id: str, kind: type[Contract], chain_id: int, address: str, actor: Actor
) -> Contract:
    """Register a contract, or leave it registered; its row. What waits for it is looked at again at once.

    Args:
        database: where.
        workspace_id: whose.
        kind: Safe or external app.
        chain_id: EIP-155.
        address: checksummed.
        actor: who does it.

    Raises:
        TooManyRegistered: see there.
    """
    key = {"workspace_id": workspace_id, "chain_id": chain_id, "address": address}
    with database.transaction() as session, told(database, session, workspace_id, actor):
        if session.get(kind, key) is None and _count(session, workspace_id, kind) >= MOST_REGISTERED:
            raise TooManyRegistered
        session.execute(insert(kind).values(**key).on_conflict_do_nothing())
        standing.look_again(session, workspace_id)
        return session.get_one(kind, key)


def _count(session: Session, workspace_id: str, kind: Kind) -> int:
    return session.scalars(select(func.count()).select_from(kind).where(kind.workspace_id == workspace_id)).one()


def remove(
    database: Database, workspace_id: str, kind: type[Contract], chain_id: int, address: str, actor: Actor
) -> Contract | None:
    """Forget a contract; the row as it was, ``None`` if there is none. What was proposed already goes on."""
    key = {"workspace_id": workspace_id, "chain_id": chain_id, "address": address}
    with database.transaction() as session, told(database, session, workspace_id, actor):
        row = session.get(kind, key, with_for_update=True)
        if row is not None:
            session.delete(row)
            standing.forget(session, workspace_id, safe_subject(chain_id, address))
            standing.look_again(session, workspace_id)
        return row
