"""The one writer of a change request's state."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from enum import Enum, auto
from functools import cache
from typing import Any, Final, cast

from psycopg.errors import UniqueViolation
from pydantic import SecretStr
from sqlalchemy import Boolean, ColumnElement, Double, Table, Text, bindparam, case, func, null, select, true, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.domain.errors import LeaseLost
from service.domain.outcomes import Advance, Facts, News, Notice, Notices, Outcome, Wait
from service.domain.states import HOLDS_CVM, SERVED_BY, TERMINAL, State, may_follow
from service.store import events, gates, inbound, membership, superseding, tokens
from service.store.database import Database, Prepared, parameters_for, perform, unattached
from service.store.leases import Lease, given_back, held, is_held, parameters_of
from service.store.membership import MEMBERS
from service.store.tables import ChangeRequest
from service.store.tokens import TOKEN

STATE_CHANNEL = "countersign_state"
"""LISTEN on it to hear the ids of change requests whose state changed."""
LIVE_CVM_INDEX = "uq_change_requests_live_cvm"
_COMMITTING = frozenset({State.REGISTERED, State.COMMITTED})
_TELL = (func.pg_notify(STATE_CHANNEL, ChangeRequest.id),)
_REQUESTS: Final = cast("Table", ChangeRequest.__table__)

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
            _write(session, lease, _Form.FACTS, columns(database, lease, facts))
            return
        gate = gates.open_for(session, lease)
        try:
            if gate is not None:
                _write(session, lease, _Form.ATTEMPT, columns(database, lease, facts), **gate)
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
        row = _write(session, lease, _Form.FACTS, {**columns(database, lease, news.facts), "updated_at": now})
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
    said = {"reason": outcome.reason.value, "detail": outcome.detail, "updated_at": now}
    row = _write(
        session,
        lease,
        _Form.WAIT,
        {**columns(database, lease, outcome.facts), **said},
        source=source.value,
        was_due=lease.due_at,
        seconds=outcome.seconds,
        failed=outcome.failed_attempt,
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
        "state_entered_at": now,
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
    row = _write(session, lease, _Form.ADVANCE, values, source=source.value, ends=target in TERMINAL)
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


class _Form(Enum):
    """What a write of a leased change request does beside storing columns."""

    FACTS = auto()
    ATTEMPT = auto()
    WAIT = auto()
    ADVANCE = auto()


def _write(
    session: Session, lease: Lease, form: _Form, values: Mapping[str, Any], **parameters: object
) -> ChangeRequest:
    """Write columns of a leased change request; its row, which the session does not know.

    Raises:
        LeaseLost: another worker took over, or a condition of the form is not met.
    """
    statement = _writing(form, frozenset(values))
    rows = perform(session, statement, {**values, **parameters_of(lease), **parameters})
    if not rows:
        raise LeaseLost("another worker holds this change request")
    row = unattached(ChangeRequest, rows[0][: len(_REQUESTS.c)])
    if "commit_token_fingerprint" in values:
        tokens.hold(session, row.id, values["commit_token_fingerprint"])
    return row


@cache
def _writing(form: _Form, names: frozenset[str]) -> Prepared:
    """The statement that writes some columns, made once for all of the same."""
    computed, condition = _FORMS[form]
    statement = update(_REQUESTS).where(is_held(ChangeRequest), condition)
    statement = statement.values(**parameters_for(_REQUESTS, sorted(names)), **computed)
    return Prepared.of(statement.returning(*_REQUESTS.c, *(_TELL if form is _Form.ADVANCE else ())))


def _forms() -> dict[_Form, tuple[dict[str, Any], ColumnElement[bool]]]:
    row, now = _REQUESTS.c, func.clock_timestamp()
    given_back: dict[str, Any] = {"lease_until": null(), "rung_at": null()}
    in_source = row.state == bindparam("source", type_=Text)
    rang = row.due_at.is_distinct_from(bindparam("was_due", type_=row.due_at.type))
    later = now + func.make_interval(0, 0, 0, 0, 0, 0, bindparam("seconds", type_=Double))
    attempts = case((bindparam("failed", type_=Boolean), row.attempts + 1), else_=0)
    due_at = case((bindparam("ends", type_=Boolean), null()), else_=now)
    return {
        _Form.FACTS: ({}, true()),
        _Form.ATTEMPT: ({}, gates.ATTEMPT_PERMITTED),
        _Form.WAIT: ({**given_back, "due_at": case((rang, now), else_=later), "attempts": attempts}, in_source),
        _Form.ADVANCE: ({**given_back, "due_at": due_at, "attempts": 0, "version": row.version + 1}, in_source),
    }


_FORMS: Final = _forms()
"""Of each form the columns that it computes, and the condition that must be met."""


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
