"""Proposal in ``posting``: claim a nonce, sign as a delegate, and put the transaction into the Safe's queue."""

from typing import Final

from service.domain.chain import SafeState
from service.domain.errors import Refused
from service.domain.outcomes import ProposalOutcome
from service.domain.reasons import Reason
from service.domain.snapshots import (
    LIVE_SAFE_TRANSACTION,
    Proposal,
    ProposalState,
    SafeTransaction,
    SafeTransactionState,
)
from service.ports import Chain, ProposalIntents, SafeQueue, Signer
from service.steps.safe_transaction import is_approved, safe_of, safe_state, verified_approval

_FIRST_LOOK_SECONDS: Final = 1.0
_ALLOWED_SECONDS: Final = 15.0


def post(
    proposal: Proposal,
    *,
    chain: Chain,
    queue: SafeQueue,
    signer: Signer,
    intents: ProposalIntents,
    origin: str,
) -> ProposalOutcome:
    """Serve a proposal in ``posting``.

    Args:
        proposal: the snapshot.
        chain: its chain.
        queue: Safe Transaction Service of that chain.
        signer: the service's own key.
        intents: stores the nonce and safeTxHash before they are posted.
        origin: what the queue shows as the origin, at most 200 characters.

    Raises:
        CountersignError: a retryable fault, or ``LeaseLost``.
    """
    if not proposal.members:
        # A transaction that was claimed may have been posted without an answer: that is for withdrawing to find out.
        untouched = proposal.transaction is None
        state = ProposalState.WITHDRAWN if untouched else ProposalState.WITHDRAWING
        return ProposalOutcome(state, None if untouched else 0.0)
    try:
        return _post(proposal, chain, queue, signer, intents, origin)
    except Refused as no:
        return ProposalOutcome(ProposalState.FAILED, None, no.detail)


def _post(
    proposal: Proposal, chain: Chain, queue: SafeQueue, signer: Signer, intents: ProposalIntents, origin: str
) -> ProposalOutcome:
    head = chain.view().head
    if is_approved(proposal, chain, head):
        # Owners would sign for nothing. Its requests end it once that is final; after a reorg it is posted.
        return ProposalOutcome(ProposalState.POSTING, _ALLOWED_SECONDS, f"allowed on chain at block {head.number}")
    safe = safe_state(proposal, chain, head)
    transaction = proposal.transaction
    if transaction is None or transaction.state not in LIVE_SAFE_TRANSACTION:
        transaction = intents.claim_nonce(queue.next_nonce(safe_of(proposal), safe.nonce))
        verified_approval(proposal, transaction, chain.chain_id)
    else:
        verified_approval(proposal, transaction, chain.chain_id)
        if queue.get(transaction.safe_tx_hash) is not None:
            return _queued(safe)
        if safe.nonce > transaction.nonce:
            return _replaced(transaction)
    if signer.address in safe.owners:
        # Its signature would be an approval.
        raise Refused(f"{signer.address} has become an owner of {safe.address}", reason=Reason.PROPOSER_IS_OWNER)
    try:
        queue.post(transaction, signer.sign(transaction.safe_tx_hash), signer.address, origin)
    except Refused:
        if safe_state(proposal, chain, chain.view().head).nonce > transaction.nonce:
            return _replaced(transaction)
        raise
    return _queued(safe)


def _queued(safe: SafeState) -> ProposalOutcome:
    return ProposalOutcome(
        ProposalState.QUEUED,
        _FIRST_LOOK_SECONDS,
        transaction_state=SafeTransactionState.QUEUED,
        threshold=safe.threshold,
    )


def _replaced(transaction: SafeTransaction) -> ProposalOutcome:
    return ProposalOutcome(
        ProposalState.POSTING,
        0.0,
        f"another transaction used nonce {transaction.nonce}, the next one is taken",
        transaction_state=SafeTransactionState.REPLACED,
    )
