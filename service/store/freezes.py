"""The switch that holds all commits of a workspace."""

from datetime import datetime

from sqlalchemy import select, update

from service.domain.gates import Freeze
from service.domain.reasons import Reason
from service.domain.states import TERMINAL
from service.store import gates, leases
from service.store.database import Database
from service.store.tables import ChangeRequest, Workspace


def current(database: Database, workspace_id: str) -> Freeze | None:
    """The workspace's freeze, ``None`` while commits go on."""
    with database.transaction() as session:
        return gates.freeze_of(*session.execute(select(*gates.FREEZE).where(Workspace.id == workspace_id)).one())


def freeze(database: Database, workspace_id: str, by: str, reason: str, now: datetime) -> Freeze:
    """Hold all commits whose attempt is not stored yet. A freeze that is on already is said anew."""
    with database.transaction() as session:
        values = {"commits_frozen_at": now, "commits_frozen_by": by, "commits_frozen_reason": reason}
        session.execute(update(Workspace).where(Workspace.id == workspace_id).values(**values))
    return Freeze(now, by, reason)


def unfreeze(database: Database, workspace_id: str) -> None:
    """End the freeze, and ring for the change requests that it holds."""
    with database.transaction() as session:
        values = dict.fromkeys(("commits_frozen_at", "commits_frozen_by", "commits_frozen_reason"))
        session.execute(update(Workspace).where(Workspace.id == workspace_id).values(**values))
        leases.ring(
            session,
            ChangeRequest,
            ChangeRequest.workspace_id == workspace_id,
            ChangeRequest.reason == Reason.COMMITS_FROZEN.value,
            ChangeRequest.state.not_in([state.value for state in TERMINAL]),
        )
