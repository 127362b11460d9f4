"""Proposal in ``approved`` whose Safe transaction is still open: the approval came by another route.

What is left in the owners' queue is harmless, as the call changes nothing any more, but it takes up a nonce.
"""

from datetime import timedelta
from typing import Final

from service.domain.errors import Refused
from service.domain.outcomes import ProposalOutcome
from service.domain.snapshots import (
    LIVE_SAFE_TRANSACTION,
    Proposal,
    ProposalState,
    SafeTransaction,
    SafeTransactionState,
)
from service.ports import Chain, Clock, SafeQueue
from service.steps.safe_transaction import safe_state, verified_approval
from service.steps.taking_out import is_taken_out
from service.steps.used_nonce import what_used

_FINALITY_SECONDS: Final = 15.0
_AGAIN_SECONDS: Final = 6 * 3600.0
_ASK_QUEUE_AGAIN: Final = timedelta(days=7)


def tidy(proposal: Proposal, *, chain: Chain, queue: SafeQueue, clock: Clock) -> ProposalOutcome:
    """Serve a proposal in ``approved``.

    Raises:
        CountersignError: a retryable fault.
    """
    transaction = proposal.transaction
    if transaction is None or transaction.state not in LIVE_SAFE_TRANSACTION:
        return ProposalOutcome(ProposalState.APPROVED, None, proposal.detail)
    try:
        verified_approval(proposal, transaction, chain.chain_id)
        return _tidy(proposal, transaction, chain, queue, clock)
    except Refused as no:
        return ProposalOutcome(ProposalState.APPROVED, None, f"its Safe transaction is left alone: {no.detail}")


def _tidy(
    proposal: Proposal, transaction: SafeTransaction, chain: Chain, queue: SafeQueue, clock: Clock
) -> ProposalOutcome:
    view = chain.view()
    safe = safe_state(proposal, chain, view.head)
    if safe.nonce > transaction.nonce:
        final = safe_state(proposal, chain, view.final)
        if final.nonce <= transaction.nonce:
            return ProposalOutcome(ProposalState.APPROVED, _FINALITY_SECONDS, "its nonce is used, not final yet")
        use = what_used(proposal, transaction, chain, queue, view.final, final.nonce)
        if use is None:
            return ProposalOutcome(ProposalState.APPROVED, _AGAIN_SECONDS, "its nonce is used, nobody tells by what")
        ours = use.safe_tx_hash == transaction.safe_tx_hash
        state = SafeTransactionState.EXECUTED if ours else SafeTransactionState.REPLACED
        used_by = use.transaction_hash if ours else None
        return ProposalOutcome(ProposalState.APPROVED, None, transaction_state=state, transaction_hash=used_by)
    now, scan_from = clock.now(), view.final.number + 1
    if proposal.queue_due_at is not None and now < proposal.queue_due_at and proposal.detail is not None:
        return ProposalOutcome(ProposalState.APPROVED, _AGAIN_SECONDS, proposal.detail, scan_from=scan_from)
    if is_taken_out(proposal, transaction, safe, chain=chain, queue=queue, head=view.head):
        return ProposalOutcome(ProposalState.APPROVED, None, transaction_state=SafeTransactionState.DELETED)
    detail = (
        f"approved by another route; the transaction at nonce {transaction.nonce} is still in the Safe's queue: "
        "the owners reject or execute it, which changes nothing"
    )
    return ProposalOutcome(
        ProposalState.APPROVED, _AGAIN_SECONDS, detail, scan_from=scan_from, queue_due_at=now + _ASK_QUEUE_AGAIN
    )
