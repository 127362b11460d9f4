"""The one writer of a change request's state."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from psycopg.errors import UniqueViolation
from pydantic import SecretStr
from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.domain.errors import LeaseLost
from service.domain.outcomes import Advance, Facts, News, Notice, Notices, Outcome, Wait
from service.domain.states import HOLDS_CVM, SERVED_BY, TERMINAL, State, may_follow
from service.store import events, gates, inbound, membership, superseding, tokens
from service.store.database import Database
from service.store.leases import Lease, due_again, given_back, held
from service.store.membership import MEMBERS
from service.store.tables import ChangeRequest
from service.store.tokens import TOKEN

STATE_CHANNEL = "countersign_state"
"""LISTEN on it to hear the ids of change requests whose state changed."""
LIVE_CVM_INDEX = "uq_change_requests_live_cvm"
_COMMITTING = frozenset({State.REGISTERED, State.COMMITTED})
_TELL = (func.pg_notify(STATE_CHANNEL, ChangeRequest.id),)

log = logging.getLogger(__name__)


class TransitionRefused(Exception):
    """A step asked for an edge that the table does not name: a defect, not an input."""


def record(database: Database, lease: Lease, facts: Facts, *, commits: bool = False) -> None:
    """Store facts of a leased change request now, without changing its state.

    An attempt that ``commits`` is not stored once its end was wished or a gate before it is closed: the lease is given
    back for that instead.

    Raises:
        LeaseLost: another worker took over, or the commit must not be attempted; nothing was written.
        CvmBusy: another live change request holds the CVM; nothing was written.
        CvmBeingFreed: the same, but that one is about to end.
    """
    with _looking_at_the_holder(database, lease, facts), database.transaction() as session:
        if not commits:
            _write(session, lease, columns(database, lease, facts))
            return
        conditions = gates.open_for(session, lease)
        try:
            if conditions is not None:
                _write(session, lease, columns(database, lease, facts), *conditions)
                return
        except LeaseLost:
            log.info("a commit was not attempted", extra={"row": str(lease.row_id)})
        session.execute(update(ChangeRequest).where(held(lease)).values(**given_back(func.clock_timestamp())))
    raise LeaseLost("the commit must not be attempted now, or another worker holds this change request")


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


def apply(database: Database, lease: Lease, source: State, outcome: Outcome, now: datetime) -> None:
    """Turn an outcome into one transaction: state, event, outbox rows, proposal; and give the lease back.

    Raises:
        LeaseLost: another worker took over; nothing was written.
        CvmBusy: another live change request holds the CVM; nothing was written.
        CvmBeingFreed: the same, but that one is about to end.
        TransitionRefused: the edge is not in the table.
    """
    with _looking_at_the_holder(database, lease, outcome.facts), database.transaction() as session:
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
        membership.approve(session, lease, outcome.allowed_at)
    elif source in MEMBERS and target not in MEMBERS:
        joined = membership.lock_joined(session, lease)
    if source in _COMMITTING and target in TERMINAL:
        gates.ring_after_end(session, lease)
    row = _write(session, lease, values, ChangeRequest.state == source.value, also=_TELL)
    if joined is not None:
        membership.leave(session, joined)
    actor, extra = Actor.system(SERVED_BY[source]), {"previous_state": source.value}
    events.append(database, session, row, name=target.value, actor=actor, now=now, extra=extra)
    _tell(database, session, row, source, outcome.notices, now)
    if target is State.SUPERSEDED:
        superseding.ring_successor(session, row)
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
def _looking_at_the_holder(database: Database, lease: Lease, facts: Facts) -> Iterator[None]:
    """Turn the index's no to a second live change request of a CVM into ``CvmBusy`` or ``CvmBeingFreed``."""
    try:
        yield
    except IntegrityError as error:
        if not isinstance(error.orig, UniqueViolation) or error.orig.diag.constraint_name != LIVE_CVM_INDEX:
            raise
        with database.transaction() as session:
            meaning = superseding.on_collision(session, str(lease.row_id), facts.get("vm_uuid"))
        raise meaning from error
