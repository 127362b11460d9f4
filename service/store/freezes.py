"""The switch that holds all commits of a workspace."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.domain.gates import Freeze
from service.domain.reasons import Reason
from service.domain.states import TERMINAL
from service.store import gates, leases
from service.store.database import Database
from service.store.tables import ChangeRequest, Workspace
from service.store.workspace_changes import told


def current(database: Database, workspace_id: str) -> Freeze | None:
    """The workspace's freeze, ``None`` while commits go on."""
    with database.transaction() as session:
        return gates.freeze_of(*session.execute(select(*gates.FREEZE).where(Workspace.id == workspace_id)).one())


def freeze(database: Database, workspace_id: str, reason: str, now: datetime, actor: Actor) -> Freeze:
    """Hold all commits whose attempt is not stored yet. A freeze that is on already is said anew."""
    by = actor.label
    values = {"commits_frozen_at": now, "commits_frozen_by": by, "commits_frozen_reason": reason}
    with _changed(database, workspace_id, actor) as session:
        session.execute(update(Workspace).where(Workspace.id == workspace_id).values(**values))
    return Freeze(now, by, reason)


def unfreeze(database: Database, workspace_id: str, actor: Actor) -> None:
    """End the freeze, and ring for the change requests that it holds."""
    values = dict.fromkeys(("commits_frozen_at", "commits_frozen_by", "commits_frozen_reason"))
    with _changed(database, workspace_id, actor) as session:
        session.execute(update(Workspace).where(Workspace.id == workspace_id).values(**values))
        leases.ring(
            session,
            ChangeRequest,
            ChangeRequest.workspace_id == workspace_id,
            ChangeRequest.reason == Reason.COMMITS_FROZEN.value,
            ChangeRequest.state.not_in([state.value for state in TERMINAL]),
        )


@contextmanager
def _changed(database: Database, workspace_id: str, actor: Actor) -> Iterator[Session]:
    """A transaction that holds the row of the workspace, as those of attempts do, and tells what it changed of it."""
    with database.transaction() as session, told(database, session, workspace_id, actor):
        yield session
