"""Proposal in ``withdrawing``: take it out of the Safe's queue, or propose its rejection."""

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
from service.ports import Chain, ProposalIntents, SafeQueue, Signer
from service.steps.safe_transaction import (
    delegate_only,
    is_approved,
    safe_state,
    verified_approval,
    verified_rejection,
)
from service.steps.taking_out import is_taken_out

_FINALITY_SECONDS: Final = 15.0
STILL_USABLE: Final = "a rejection is proposed; signatures already given stay usable until it executes"


def withdraw(
    proposal: Proposal,
    *,
    chain: Chain,
    queue: SafeQueue,
    signer: Signer,
    intents: ProposalIntents,
    origin: str,
) -> ProposalOutcome:
    """Serve a proposal in ``withdrawing``.

    Args:
        proposal: the snapshot.
        chain: its chain.
        queue: Safe Transaction Service of that chain.
        signer: the service's own key.
        intents: stores the rejection before it is posted.
        origin: what the queue shows as the origin, at most 200 characters.

    Raises:
        CountersignError: a retryable fault, or ``LeaseLost``.
    """
    transaction = proposal.transaction
    if proposal.safe is None or transaction is None or transaction.state not in LIVE_SAFE_TRANSACTION:
        return ProposalOutcome(ProposalState.WITHDRAWN, None)
    try:
        verified_approval(proposal, transaction, chain.chain_id)
        return _withdraw(proposal, transaction, chain, queue) or _reject(
            proposal, transaction, chain, queue, signer, intents, origin
        )
    except Refused as no:
        return ProposalOutcome(ProposalState.FAILED, None, f"it could not be withdrawn: {no.detail}")


def _withdraw(
    proposal: Proposal, transaction: SafeTransaction, chain: Chain, queue: SafeQueue
) -> ProposalOutcome | None:
    """Everything short of a rejection; ``None`` when only that is left."""
    view = chain.view()
    if is_approved(proposal, chain, view.head):
        # What is left in the queue is tidied up like after any other approval.
        return ProposalOutcome(ProposalState.APPROVED, 0.0, "allowed on chain: there is nothing to withdraw")
    safe = safe_state(proposal, chain, view.head)
    if safe.nonce > transaction.nonce:
        if safe_state(proposal, chain, view.final).nonce <= transaction.nonce:
            return ProposalOutcome(ProposalState.WITHDRAWING, _FINALITY_SECONDS, "its nonce is used, not final yet")
        return ProposalOutcome(ProposalState.WITHDRAWN, None, transaction_state=SafeTransactionState.REPLACED)
    if proposal.rejection is not None:
        return None
    if is_taken_out(proposal, transaction, safe, chain=chain, queue=queue, head=view.head):
        return ProposalOutcome(ProposalState.WITHDRAWN, None, transaction_state=SafeTransactionState.DELETED)
    return None


def _reject(
    proposal: Proposal,
    transaction: SafeTransaction,
    chain: Chain,
    queue: SafeQueue,
    signer: Signer,
    intents: ProposalIntents,
    origin: str,
) -> ProposalOutcome:
    delegate_only(signer, safe_state(proposal, chain, chain.view().head))
    rejection = proposal.rejection or intents.intend_rejection(transaction.nonce)
    verified_rejection(proposal, rejection, chain.chain_id)
    try:
        queue.post(rejection, signer.sign(rejection.safe_tx_hash), signer.address, origin)
    except Refused:
        if safe_state(proposal, chain, chain.view().head).nonce > transaction.nonce:
            return ProposalOutcome(ProposalState.WITHDRAWING, 0.0, "its nonce was used just now")
        raise
    return ProposalOutcome(ProposalState.WITHDRAWN, None, STILL_USABLE, rejection_state=SafeTransactionState.QUEUED)
