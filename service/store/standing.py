"""What blocks a workspace: what was found outside, and what the operator decided.

A *fault* is something outside that only the workspace can repair: its Phala API key is refused, a Safe of it has gone
or lost its delegate. Whoever meets one notes it, and its requests wait; whoever finds the same thing well again forgets
it and rings for them. A *block* is the operator's: while it lasts, nothing is prepared, proposed or committed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.domain.acts import Act
from service.domain.reasons import BLOCKS_WORKSPACE, Reason
from service.domain.workspaces import PHALA
from service.store import acts, leases
from service.store.database import Database
from service.store.tables import ChangeRequest, Workspace, WorkspaceFault
from service.store.workspace_changes import told

KEPT: Final = timedelta(days=1)
"""A fault that nobody met for so long is forgotten: nobody knows any more whether it lasts."""


@dataclass(frozen=True, slots=True)
class Hindrance:
    """One thing that keeps requests of a workspace waiting.

    Attributes:
        subject: what is wrong, such as ``phala:key`` or ``safe:8453:0x..``; ``None`` if the operator decided it.
        seen_at: when it was met last.
    """

    reason: Reason
    subject: str | None
    detail: str
    since: datetime
    seen_at: datetime | None


def note(
    database: Database,
    workspace_id: str,
    subject: str,
    reason: Reason,
    detail: str,
    *,
    key_set_at: datetime | None = None,
) -> None:
    """Keep a fault that was met just now. With ``key_set_at`` only if the Phala API key is still the one set then."""
    of_now = select(literal(workspace_id), literal(subject), literal(reason.value), literal(detail)).where(
        Workspace.id == workspace_id
    )
    if key_set_at is not None:
        of_now = of_now.where(Workspace.phala_api_key_set_at == key_set_at)
    statement = insert(WorkspaceFault).from_select(["workspace_id", "subject", "reason", "detail"], of_now)
    again = {"reason": reason.value, "detail": detail, "seen_at": func.now()}
    with database.transaction() as session:
        session.execute(statement.on_conflict_do_update(index_elements=["workspace_id", "subject"], set_=again))


def found_well(database: Database, workspace_id: str, subject: str) -> None:
    """Forget a fault, if there was one, and ring for what waits for the like."""
    with database.transaction() as session:
        if forget(session, workspace_id, subject):
            look_again(session, workspace_id)


def forget(session: Session, workspace_id: str, subject: str) -> bool:
    """Forget a fault; whether there was one."""
    ours = (WorkspaceFault.workspace_id == workspace_id, WorkspaceFault.subject == subject)
    return session.execute(delete(WorkspaceFault).where(*ours).returning(WorkspaceFault.subject)).first() is not None


def forget_key_faults(session: Session, workspace_id: str) -> None:
    """Forget what was wrong with a Phala API key that is replaced, and ring for what waited for another."""
    of_key = WorkspaceFault.subject.startswith(PHALA, autoescape=True)
    session.execute(delete(WorkspaceFault).where(WorkspaceFault.workspace_id == workspace_id, of_key))
    look_again(session, workspace_id)


def look_again(session: Session, workspace_id: str) -> int:
    """Make due now what waits for a fault to be repaired, or for the operator; how many change requests."""
    reasons = [reason.value for reason in (*BLOCKS_WORKSPACE, Reason.WORKSPACE_BLOCKED)]
    waits = (
        ChangeRequest.workspace_id == workspace_id,
        ChangeRequest.due_at.is_not(None),
        ChangeRequest.reason.in_(reasons),
    )
    return len(leases.ring(session, ChangeRequest, *waits))


def forget_old(database: Database) -> int:
    """Forget faults that nobody met for ``KEPT``; how many."""
    with database.transaction() as session:
        old = delete(WorkspaceFault).where(WorkspaceFault.seen_at < func.now() - KEPT)
        return len(session.execute(old.returning(WorkspaceFault.subject)).all())


def recheck(database: Database, workspace_id: str, actor: Actor) -> int:
    """Look again at what waits, as somebody wished; how many change requests."""
    with database.transaction() as session:
        return _recheck(database, session, workspace_id, actor)


def _recheck(database: Database, session: Session, workspace_id: str, actor: Actor) -> int:
    number = look_again(session, workspace_id)
    acts.append(database, session, workspace_id, Act.RECHECK_REQUESTED, actor=actor, data={"change_requests": number})
    return number


def block(database: Database, workspace_id: str, words: str, actor: Actor) -> None:
    """Hold the work of a workspace, or say anew why it is held."""
    since = func.coalesce(Workspace.blocked_at, func.now())
    held = update(Workspace).where(Workspace.id == workspace_id).values(blocked_reason=words, blocked_at=since)
    with database.transaction() as session, told(database, session, workspace_id, actor):
        session.execute(held)


def unblock(database: Database, workspace_id: str, actor: Actor) -> int:
    """Let the work of a workspace go on, and look again at what waits for a fault; how many change requests."""
    freed = update(Workspace).where(Workspace.id == workspace_id).values(blocked_reason=None, blocked_at=None)
    with database.transaction() as session:
        with told(database, session, workspace_id, actor):
            session.execute(freed)
        return _recheck(database, session, workspace_id, actor)


def block_of(session: Session, workspace_id: str) -> str | None:
    """The operator's words while the workspace is blocked."""
    return session.scalar(select(Workspace.blocked_reason).where(Workspace.id == workspace_id))


def hindrances(session: Session, row: Workspace) -> list[Hindrance]:
    """Everything that blocks a workspace: the operator's block first, then faults, oldest first."""
    found: list[Hindrance] = []
    if row.blocked_reason is not None and row.blocked_at is not None:
        found.append(Hindrance(Reason.WORKSPACE_BLOCKED, None, row.blocked_reason, row.blocked_at, None))
    return found + [
        Hindrance(Reason(fault.reason), fault.subject, fault.detail, fault.since, fault.seen_at)
        for fault in _faults(session, row.id)
    ]


def _faults(session: Session, workspace_id: str) -> Sequence[WorkspaceFault]:
    of_workspace = select(WorkspaceFault).where(WorkspaceFault.workspace_id == workspace_id)
    return session.scalars(of_workspace.order_by(WorkspaceFault.since, WorkspaceFault.subject)).all()


@dataclass(frozen=True, slots=True)
class KeyStanding:
    """What Phala Cloud says about the key of one workspace, from call to call.

    Attributes:
        known: subjects of faults when the key was read.
    """

    database: Database
    workspace_id: str
    key_set_at: datetime
    known: frozenset[str]

    def refused(self, subject: str, detail: str) -> None:
        """The key was refused."""
        reason = Reason.PHALA_UNAUTHORIZED
        note(self.database, self.workspace_id, subject, reason, detail, key_set_at=self.key_set_at)

    def accepted(self, subject: str) -> None:
        """It was not."""
        if subject in self.known:
            found_well(self.database, self.workspace_id, subject)
