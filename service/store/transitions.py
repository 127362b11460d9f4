"""The one writer of a change request's state."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import SecretStr
from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.domain.errors import CvmBusy, LeaseLost
from service.domain.outcomes import Advance, Facts, Outcome, Wait
from service.domain.snapshots import LIVE_PROPOSAL, ProposalState
from service.domain.states import HOLDS_CVM, TERMINAL, State, may_follow
from service.store import events
from service.store.database import Database
from service.store.leases import Lease, due_again, held
from service.store.tables import ChangeRequest, Proposal

TOKEN = "commit_token"  # noqa: S105 - the name of a column
STATE_CHANNEL = "countersign_state"
"""LISTEN on it to hear the ids of change requests whose state changed."""
LIVE_CVM_INDEX = "uq_change_requests_live_cvm"
MEMBER_STATES = (State.PREPARED, State.PROPOSED, State.EXECUTED)


class TransitionRefused(Exception):
    """A step asked for an edge that the table does not name: a defect, not an input."""


def record(database: Database, lease: Lease, facts: Facts) -> None:
    """Store facts of a leased change request now, without changing its state.

    Raises:
        LeaseLost: another worker took over.
        CvmBusy: another live change request holds the CVM.
    """
    with database.transaction() as session:
        _write(session, lease, columns(database, lease, facts))


def apply(database: Database, lease: Lease, source: State, outcome: Outcome, now: datetime) -> None:
    """Turn an outcome into one transaction: state, event, outbox rows, proposal; and give the lease back.

    Raises:
        LeaseLost: another worker took over; nothing was written.
        CvmBusy: another live change request holds the CVM; nothing was written.
        TransitionRefused: the edge is not in the table.
    """
    with database.transaction() as session:
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
            "due_at": due_again(lease, outcome.seconds),
            "lease_until": None,
            "attempts": attempts,
            "reason": outcome.reason.value,
            "detail": outcome.detail,
            "updated_at": now,
        },
        ChangeRequest.state == source.value,
    )
    for notice, data in outcome.notices:
        events.append(database, session, row, name=notice.value, now=now, extra=data)


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
        "due_at": None if target in TERMINAL else func.now(),
        "lease_until": None,
        "attempts": 0,
        "reason": outcome.reason.value if outcome.reason else None,
        "detail": outcome.detail,
        "updated_at": now,
    }
    if target in TERMINAL or target is State.COMMITTED:
        values["commit_token_sealed"] = None
    row = _write(session, lease, values, ChangeRequest.state == source.value)
    _settle_proposal(session, row, target)
    session.execute(select(func.pg_notify(STATE_CHANNEL, row.id)))
    events.append(database, session, row, name=target.value, now=now, extra={"previous_state": source.value})
    for notice, data in outcome.notices:
        events.append(database, session, row, name=notice.value, now=now, extra=data)


def _settle_proposal(session: Session, row: ChangeRequest, target: State) -> None:
    """The approval is final: the proposal ends. The last member left: the proposal is to be withdrawn."""
    if row.proposal_id is None or target not in TERMINAL | {State.REGISTERED}:
        return
    proposal = session.get(Proposal, row.proposal_id, with_for_update=True)
    if proposal is None or ProposalState(proposal.state) not in LIVE_PROPOSAL:
        return
    if target is State.REGISTERED:
        proposal.state, proposal.due_at = ProposalState.APPROVED, None
        return
    others = select(func.count()).where(
        ChangeRequest.proposal_id == proposal.id, ChangeRequest.state.in_([state.value for state in MEMBER_STATES])
    )
    if session.scalar(others):
        return
    if proposal.state == ProposalState.EXTERNAL:
        proposal.state, proposal.due_at = ProposalState.WITHDRAWN, None
    elif proposal.state != ProposalState.WITHDRAWING:
        proposal.state, proposal.rung_at = ProposalState.WITHDRAWING, None
        session.execute(update(Proposal).where(Proposal.id == proposal.id).values(due_at=func.now()))


def columns(database: Database, lease: Lease, facts: Facts) -> dict[str, Any]:
    """Facts as column values: the token sealed, with its fingerprint."""
    values: dict[str, Any] = dict(facts)
    if TOKEN in values:
        token = values.pop(TOKEN)
        if token is None:
            values["commit_token_sealed"] = None
        else:
            secret = SecretStr(token)
            values["commit_token_sealed"] = database.sealer.seal(secret, purpose=TOKEN, row_id=str(lease.row_id))
            values["commit_token_fingerprint"] = database.sealer.fingerprint(secret)
    return values


def _write(
    session: Session, lease: Lease, values: Mapping[str, Any], *conditions: ColumnElement[bool]
) -> ChangeRequest:
    statement = update(ChangeRequest).where(held(lease), *conditions).values(**values).returning(ChangeRequest)
    try:
        row = session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
    except IntegrityError as error:
        if LIVE_CVM_INDEX in str(error.orig):
            raise CvmBusy("another change request of this CVM is live") from error
        raise
    if row is None:
        raise LeaseLost("another worker holds this change request")
    return row


def holder_of_cvm(session: Session, workspace_id: str, vm_uuid: str, other_than: str) -> str | None:
    """The live change request that holds a CVM, if another one does."""
    return session.scalar(
        select(ChangeRequest.id).where(
            ChangeRequest.workspace_id == workspace_id,
            ChangeRequest.vm_uuid == vm_uuid,
            ChangeRequest.id != other_than,
            ChangeRequest.state.in_([state.value for state in HOLDS_CVM]),
        )
    )
