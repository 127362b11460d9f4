"""What people wish of a change request under way. Whoever holds its lease makes it so."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.domain.outcomes import Notice
from service.domain.states import TERMINAL, State
from service.store import events, gates
from service.store.database import Database
from service.store.tables import ChangeRequest


class CommitStarted(Exception):
    """Too late: a commit attempt is stored."""


class AlreadyEnded(Exception):
    """Too late: the change request is in a terminal state."""


def wish_cancel(
    database: Database, workspace_id: str, request_id: str, now: datetime, actor: Actor
) -> ChangeRequest | None:
    """Store the wish to cancel; the lease holder turns it into a state. ``None`` if there is no such request.

    Raises:
        CommitStarted: a commit attempt is stored.
        AlreadyEnded: in a terminal state other than ``cancelled``.
    """
    with database.transaction() as session:
        row = _locked(session, workspace_id, request_id)
        if row is None or row.state == State.CANCELLED:
            return row
        check_open(row)
        if row.cancel_requested_at is None:
            row.cancel_requested_at = now
            _tell(database, session, row, Notice.CANCEL_REQUESTED, actor, now)
        return row


def release(
    database: Database, workspace_id: str, request_id: str, now: datetime, actor: Actor
) -> ChangeRequest | None:
    """Let a change request's commit follow: what its policy or a failure holds, holds it no more.

    It may be released before it is held. To release it again changes nothing, unless another update of its rollout
    failed meanwhile. ``None`` if there is no such request.

    Raises:
        CommitStarted: a commit attempt is stored.
        AlreadyEnded: in a terminal state.
    """
    with database.transaction() as session:
        row = _locked(session, workspace_id, request_id)
        if row is None:
            return None
        check_open(row)
        failed_at = session.scalar(gates.latest_failure(row.id))
        if row.released_at is None or failed_at is not None:
            # The failure was stored by another clock: what is known of when this is released must not be held.
            row.released_at = now if failed_at is None else max(now, failed_at)
            row.released_by = actor.label
            _tell(database, session, row, Notice.RELEASED, actor, now)
        return row


def _locked(session: Session, workspace_id: str, request_id: str) -> ChangeRequest | None:
    return session.scalars(
        select(ChangeRequest)
        .where(ChangeRequest.id == request_id, ChangeRequest.workspace_id == workspace_id)
        .with_for_update()
    ).one_or_none()


def check_open(row: ChangeRequest) -> None:
    """Whether something can be wished still.

    Raises:
        AlreadyEnded: in a terminal state.
        CommitStarted: a commit attempt is stored.
    """
    if State(row.state) in TERMINAL:
        raise AlreadyEnded
    if row.commit_attempted_at is not None or row.state == State.COMMITTED:
        raise CommitStarted


def _tell(
    database: Database, session: Session, row: ChangeRequest, notice: Notice, actor: Actor, now: datetime
) -> None:
    """Write a wish with its event, and ring for it."""
    row.due_at, row.rung_at, row.updated_at = func.clock_timestamp(), None, now
    events.append(database, session, row, name=notice.value, actor=actor, now=now)
    session.refresh(row)
