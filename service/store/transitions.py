"""The one writer of a change request's state."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from psycopg.errors import UniqueViolation
from pydantic import SecretStr
from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.domain.errors import CvmBusy, LeaseLost
from service.domain.outcomes import Advance, Facts, News, Notice, Notices, Outcome, Wait
from service.domain.states import HOLDS_CVM, SERVED_BY, TERMINAL, State, may_follow
from service.store import events, inbound, membership, tokens
from service.store.database import Database
from service.store.leases import Lease, due_again, given_back, held
from service.store.membership import MEMBERS
from service.store.tables import ChangeRequest
from service.store.tokens import TOKEN

STATE_CHANNEL = "countersign_state"
"""LISTEN on it to hear the ids of change requests whose state changed."""
LIVE_CVM_INDEX = "uq_change_requests_live_cvm"
_TELL = (func.pg_notify(STATE_CHANNEL, ChangeRequest.id),)

_NOT_TOO_LATE = or_(ChangeRequest.cancel_requested_at.is_(None), ChangeRequest.commit_attempted_at.is_not(None))
"""Condition that no cancel was accepted before the first commit attempt."""


class TransitionRefused(Exception):
    """A step asked for an edge that the table does not name: a defect, not an input."""


def record(database: Database, lease: Lease, facts: Facts) -> None:
    """Store facts of a leased change request now, without changing its state.

    The first commit attempt is not stored once a cancel was accepted: the lease is given back for that instead.

    Raises:
        LeaseLost: another worker took over, or a cancel came first; nothing was written.
        CvmBusy: another live change request holds the CVM; nothing was written.
    """
    first_attempt = "commit_attempted_at" in facts
    conditions = (_NOT_TOO_LATE,) if first_attempt else ()
    with _naming_the_holder(database, lease, facts), database.transaction() as session:
        try:
            _write(session, lease, columns(database, lease, facts), *conditions)
        except LeaseLost:
            cancelled = first_attempt and _give_back_if_cancelled(session, lease)
            if not cancelled:
                raise
        else:
            return
    raise LeaseLost("a cancel was asked for before the commit attempt")


def publish(database: Database, lease: Lease, news: News, now: datetime) -> None:
    """Store news of a leased change request now: facts, the events about them, and verdicts on heard prepares.

    Raises:
        LeaseLost: another worker took over; nothing was written.
    """
    with database.transaction() as session:
        row = _write(session, lease, {**columns(database, lease, news.facts), "updated_at": now})
        inbound.decide(session, news.heard, row.id, now)
        _tell(database, session, row, State(row.state), news.notices, now)


def _tell(
    database: Database, session: Session, row: ChangeRequest, source: State, notices: Notices, now: datetime
) -> None:
    """Append what happened beside a change of state. Signatures are their owners' doing, the rest the step's."""
    for notice, data in notices:
        owners = data.get("owners") if notice is Notice.APPROVAL_ADDED else None
        actor = Actor.signers(tuple(owners)) if isinstance(owners, list) else Actor.system(SERVED_BY[source])
        events.append(database, session, row, name=notice.value, actor=actor, now=now, extra=data)


def _give_back_if_cancelled(session: Session, lease: Lease) -> bool:
    asked = select(ChangeRequest.cancel_requested_at, ChangeRequest.commit_attempted_at).where(held(lease))
    row = session.execute(asked.with_for_update(key_share=True)).one_or_none()
    if row is None or row.cancel_requested_at is None or row.commit_attempted_at is not None:
        return False
    session.execute(update(ChangeRequest).where(held(lease)).values(**given_back(func.clock_timestamp())))
    return True


def apply(database: Database, lease: Lease, source: State, outcome: Outcome, now: datetime) -> None:
    """Turn an outcome into one transaction: state, event, outbox rows, proposal; and give the lease back.

    Raises:
        LeaseLost: another worker took over; nothing was written.
        CvmBusy: another live change request holds the CVM; nothing was written.
        TransitionRefused: the edge is not in the table.
    """
    with _naming_the_holder(database, lease, outcome.facts), database.transaction() as session:
        if isinstance(outcome, Wait):
            _wait(database, session, lease, source, outcome, now)
        else:
            _advance(database, session, lease, source, outcome, now)


def _wait(database: Database, session: Session, lease: Lease, source: State, outcome: Wait, now: datetime) -> None:
    values = columns(database, lease, outcome.facts)
    attempts = ChangeRequest.attempts + 1 if outcome.failed_attempt else 0
    row = _write(
        session,
        lease,
        {
            **values,
            **given_back(due_again(lease, outcome.seconds)),
            "attempts": attempts,
            "reason": outcome.reason.value,
            "detail": outcome.detail,
            "updated_at": now,
        },
        ChangeRequest.state == source.value,
    )
    _tell(database, session, row, source, outcome.notices, now)


def _advance(
    database: Database, session: Session, lease: Lease, source: State, outcome: Advance, now: datetime
) -> None:
    target = outcome.to
    if not may_follow(source, target):
        raise TransitionRefused(f"{source.value} -> {target.value} is not an edge")
    values: dict[str, Any] = {
        **columns(database, lease, outcome.facts),
        "state": target.value,
        "version": ChangeRequest.version + 1,
        "state_entered_at": now,
        **given_back(None if target in TERMINAL else func.clock_timestamp()),
        "attempts": 0,
        "reason": outcome.reason.value if outcome.reason else None,
        "detail": outcome.detail,
        "updated_at": now,
    }
    if target in TERMINAL or target is State.COMMITTED:
        values["commit_token_sealed"] = None
    freed = _lock_freed_cvm(session, lease) if source in HOLDS_CVM and target not in HOLDS_CVM else None
    joined = None
    if source in MEMBERS and target is State.REGISTERED:
        membership.approve(session, lease)
    elif source in MEMBERS and target not in MEMBERS:
        joined = membership.lock_joined(session, lease)
    row = _write(session, lease, values, ChangeRequest.state == source.value, also=_TELL)
    if joined is not None:
        membership.leave(session, joined)
    actor, extra = Actor.system(SERVED_BY[source]), {"previous_state": source.value}
    events.append(database, session, row, name=target.value, actor=actor, now=now, extra=extra)
    _tell(database, session, row, source, outcome.notices, now)
    if freed is not None:
        inbound.settle(database, session, row.workspace_id, freed, now)


def _lock_freed_cvm(session: Session, lease: Lease) -> str | None:
    """The CVM that a leased request lets go of, its name locked. The holder of the lease alone changes it."""
    found = session.execute(select(ChangeRequest.workspace_id, ChangeRequest.vm_uuid).where(held(lease))).one_or_none()
    if found is None or found.vm_uuid is None:
        return None
    inbound.lock_cvm(session, found.workspace_id, found.vm_uuid)
    return str(found.vm_uuid)


def columns(database: Database, lease: Lease, facts: Facts) -> dict[str, Any]:
    """Facts as column values: the token sealed, with its fingerprint."""
    values: dict[str, Any] = dict(facts)
    if TOKEN in values:
        token = values.pop(TOKEN)
        if token is None:
            values["commit_token_sealed"] = None
        else:
            values |= tokens.columns(database, str(lease.row_id), SecretStr(token))
    return values


def _write(
    session: Session,
    lease: Lease,
    values: Mapping[str, Any],
    *conditions: ColumnElement[bool],
    also: Sequence[ColumnElement[Any]] = (),
) -> ChangeRequest:
    statement = update(ChangeRequest).where(held(lease), *conditions).values(**values).returning(ChangeRequest, *also)
    row: ChangeRequest | None = session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
    if row is None:
        raise LeaseLost("another worker holds this change request")
    if "commit_token_fingerprint" in values:
        tokens.hold(session, row.id, values["commit_token_fingerprint"])
    return row


@contextmanager
def _naming_the_holder(database: Database, lease: Lease, facts: Facts) -> Iterator[None]:
    """Turn the index's no to a second live change request of a CVM into ``CvmBusy``."""
    try:
        yield
    except IntegrityError as error:
        if not isinstance(error.orig, UniqueViolation) or error.orig.diag.constraint_name != LIVE_CVM_INDEX:
            raise
        with database.transaction() as session:
            holder = _holder_of_cvm(session, str(lease.row_id), facts.get("vm_uuid"))
        detail = f"change request {holder} of this CVM is live" if holder else "another one was live until just now"
        raise CvmBusy(detail) from error


def _holder_of_cvm(session: Session, request_id: str, vm_uuid: str | None) -> str | None:
    workspace_id = select(ChangeRequest.workspace_id).where(ChangeRequest.id == request_id).scalar_subquery()
    return session.scalar(
        select(ChangeRequest.id).where(
            ChangeRequest.workspace_id == workspace_id,
            ChangeRequest.vm_uuid == vm_uuid,
            ChangeRequest.id != request_id,
            ChangeRequest.state.in_([state.value for state in HOLDS_CVM]),
        )
    )
