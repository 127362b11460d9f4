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
    is_approved,
    safe_of,
    safe_state,
    verified_approval,
    verified_rejection,
)

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
        return ProposalOutcome(ProposalState.APPROVED, None, "allowed on chain: there is nothing to withdraw")
    safe = safe_state(proposal, chain, view.head)
    if safe.nonce > transaction.nonce:
        if safe_state(proposal, chain, view.final).nonce <= transaction.nonce:
            return ProposalOutcome(ProposalState.WITHDRAWING, _FINALITY_SECONDS, "its nonce is used, not final yet")
        return ProposalOutcome(ProposalState.WITHDRAWN, None, transaction_state=SafeTransactionState.REPLACED)
    if proposal.rejection is not None:
        return None
    queued = queue.get(transaction.safe_tx_hash)
    if queued is not None:
        # Taking out a lower nonce would leave a hole that blocks everything above it.
        highest = queue.next_nonce(safe_of(proposal), safe.nonce) == transaction.nonce + 1
        if queued.confirmations or not highest or not _deleted(proposal, transaction, queue):
            return None
    return ProposalOutcome(ProposalState.WITHDRAWN, None, transaction_state=SafeTransactionState.DELETED)


def _deleted(proposal: Proposal, transaction: SafeTransaction, queue: SafeQueue) -> bool:
    try:
        queue.delete(safe_of(proposal), transaction.safe_tx_hash)
    except Refused:
        return False
    return True


def _reject(
    proposal: Proposal,
    transaction: SafeTransaction,
    chain: Chain,
    queue: SafeQueue,
    signer: Signer,
    intents: ProposalIntents,
    origin: str,
) -> ProposalOutcome:
    rejection = proposal.rejection or intents.intend_rejection(transaction.nonce)
    verified_rejection(proposal, rejection, chain.chain_id)
    queue.post(rejection, signer.sign(rejection.safe_tx_hash), signer.address, origin)
    return ProposalOutcome(ProposalState.WITHDRAWN, None, STILL_USABLE, rejection_state=SafeTransactionState.QUEUED)
