"""Change requests as members of a proposal.

Locks are taken in one order everywhere, so that two transactions never wait for each other: the name of an identity,
then proposals, then change requests, these in the order of their ids.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, case, exists, func, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from service.domain.snapshots import LIVE_PROPOSAL, LIVE_SAFE_TRANSACTION, ProposalState, SafeTransactionKind
from service.domain.states import State
from service.store import leases
from service.store.columns import plain
from service.store.database import Prepared, perform
from service.store.leases import Lease, held, is_held, parameters_of
from service.store.tables import ChangeRequest, Proposal, SafeTransaction

MEMBERS = frozenset({State.PREPARED, State.PROPOSED, State.EXECUTED})
IS_MEMBER = ChangeRequest.state.in_(sorted(MEMBERS))
"""Condition that a change request that joined a proposal still waits for it."""


def members_of(proposal_id: str) -> ColumnElement[bool]:
    """Condition that a change request joined the proposal and still waits for it."""
    return and_(ChangeRequest.proposal_id == proposal_id, IS_MEMBER)


def has_members(session: Session, proposal_id: str) -> bool:
    """Whether anybody waits for the proposal. Only an answer under the proposal's lock stays true."""
    return bool(session.scalar(select(exists().where(members_of(proposal_id)))))


def ring_members(session: Session, proposal_id: str) -> Sequence[tuple[str, str]]:
    """Make the members of a proposal due now."""
    return leases.ring(session, ChangeRequest, members_of(proposal_id))


def lock(session: Session, proposal_id: str | None) -> Proposal | None:
    """A proposal, locked until the transaction ends."""
    if proposal_id is None:
        return None
    return session.get(Proposal, proposal_id, with_for_update={"key_share": True})


def lock_joined(session: Session, lease: Lease) -> Proposal | None:
    """The proposal of a leased change request, locked. The holder of the lease alone joins another."""
    joined = select(Proposal).join(ChangeRequest, ChangeRequest.proposal_id == Proposal.id).where(held(lease))
    return session.scalars(joined.with_for_update(key_share=True, of=Proposal)).one_or_none()


def leave(session: Session, proposal: Proposal) -> None:
    """A member left a locked proposal: if it was the last, the proposal is to be withdrawn."""
    if ProposalState(proposal.state) not in LIVE_PROPOSAL or has_members(session, proposal.id):
        return
    if proposal.state == ProposalState.EXTERNAL:
        _become(proposal, ProposalState.WITHDRAWN, due=False)
    elif proposal.state != ProposalState.WITHDRAWING:
        _become(proposal, ProposalState.WITHDRAWING, due=True)


def approve(session: Session, lease: Lease, at_block: int | None) -> None:
    """What the proposal of a leased change request asks for is allowed at a final block, by whatever route: it ends.

    A Safe transaction of ours that is not known to be executed is looked after: it may be left in the owners' queue.

    Args:
        session: the transaction.
        lease: of the change request.
        at_block: that block, if it is known.
    """
    perform(session, _APPROVE, {**parameters_of(lease), "at_block": at_block})


def _become(proposal: Proposal, state: ProposalState, *, due: bool) -> None:
    # The lease stays with its holder, whose outcome will find another state than it decided on.
    proposal.state = state
    proposal.rung_at = None
    proposal.due_at = func.clock_timestamp() if due else None


def _approve() -> ReturningUpdate[Any]:
    left = exists().where(
        SafeTransaction.proposal_id == Proposal.id,
        SafeTransaction.kind == SafeTransactionKind.APPROVAL.value,
        SafeTransaction.state.in_(plain(*sorted(LIVE_SAFE_TRANSACTION))),
    )
    return (
        update(Proposal)
        .where(
            ChangeRequest.proposal_id == Proposal.id,
            is_held(ChangeRequest),
            Proposal.state.in_(plain(*sorted(LIVE_PROPOSAL))),
        )
        .values(
            state=ProposalState.APPROVED.value,
            queue_due_at=None,
            approved_at_block=bindparam("at_block"),
            rung_at=None,
            due_at=case((left, func.clock_timestamp())),
        )
        .returning(Proposal.id)
    )


_APPROVE: Final = Prepared.of(_approve())
