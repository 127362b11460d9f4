"""Proposal in ``queued``: who signed, and whether its nonce was used.

The queue is a hint. Signatures count only when they recover to a current owner over the recomputed safeTxHash; a nonce
counts as used only at a final block.
"""

from service.domain.calls import rejection_call, safe_tx_hash
from service.domain.chain import SafeState
from service.domain.errors import Refused
from service.domain.outcomes import ProposalOutcome
from service.domain.signatures import recover
from service.domain.snapshots import Proposal, ProposalState, SafeTransaction, SafeTransactionState
from service.ports import Chain, QueuedTransaction, SafeQueue
from service.steps.safe_transaction import is_approved, safe_of, safe_state, verified_approval


def signatures(proposal: Proposal, *, chain: Chain, queue: SafeQueue, poll_seconds: float) -> ProposalOutcome:
    """Serve a proposal in ``queued``.

    Args:
        proposal: the snapshot.
        chain: its chain.
        queue: Safe Transaction Service of that chain.
        poll_seconds: when to look again.

    Raises:
        CountersignError: a retryable fault.
    """
    if not proposal.members:
        return ProposalOutcome(ProposalState.WITHDRAWING, 0.0)
    transaction = proposal.transaction
    if transaction is None:
        return ProposalOutcome(ProposalState.POSTING, 0.0)
    if transaction.state is SafeTransactionState.EXECUTED:
        return _executed(proposal, transaction, chain, poll_seconds)
    try:
        verified_approval(proposal, transaction, chain.chain_id)
        return _look(proposal, transaction, chain, queue, poll_seconds)
    except Refused as no:
        return ProposalOutcome(ProposalState.FAILED, None, no.detail)


def _executed(proposal: Proposal, transaction: SafeTransaction, chain: Chain, poll_seconds: float) -> ProposalOutcome:
    """Its requests decide by the allowlist, and the queue has nothing more to say. Nobody may wait for what is over."""
    view = chain.view()
    final = safe_state(proposal, chain, view.final).nonce > transaction.nonce
    if not final or is_approved(proposal, chain, view.final) or is_approved(proposal, chain, view.head):
        return ProposalOutcome(ProposalState.QUEUED, poll_seconds)
    detail = f"the Safe executed it at nonce {transaction.nonce}, and what it allowed was taken away again"
    return ProposalOutcome(ProposalState.FAILED, None, detail)


def _look(
    proposal: Proposal, transaction: SafeTransaction, chain: Chain, queue: SafeQueue, poll_seconds: float
) -> ProposalOutcome:
    view = chain.view()
    safe = safe_state(proposal, chain, view.head)
    if safe.nonce > transaction.nonce:
        if safe_state(proposal, chain, view.final).nonce > transaction.nonce:
            return _used(proposal, transaction, chain, queue, poll_seconds)
        return ProposalOutcome(ProposalState.QUEUED, poll_seconds, f"nonce {transaction.nonce} is used, not final yet")
    queued = queue.get(transaction.safe_tx_hash)
    if queued is None:
        return ProposalOutcome(
            ProposalState.POSTING,
            0.0,
            "the transaction vanished from the Safe's queue and is posted again",
            transaction_state=SafeTransactionState.INTENDED,
        )
    return _counted(transaction, queued, safe, poll_seconds)


def _counted(
    transaction: SafeTransaction, queued: QueuedTransaction, safe: SafeState, poll_seconds: float
) -> ProposalOutcome:
    recovered = [recover(transaction.safe_tx_hash, signature) for _, signature in queued.confirmations]
    signers = {signer for signer in recovered if signer is not None}
    owners = tuple(owner for owner in safe.owners if owner in signers)
    left_out = len(recovered) - len(owners)
    detail = f"{left_out} confirmation(s) are no ECDSA signature of a current owner" if left_out else None
    return ProposalOutcome(ProposalState.QUEUED, poll_seconds, detail, confirmations=owners, threshold=safe.threshold)


def _used(
    proposal: Proposal, transaction: SafeTransaction, chain: Chain, queue: SafeQueue, poll_seconds: float
) -> ProposalOutcome:
    """The nonce is used up for good: by ours, by a rejection, or by another transaction."""
    safe, nonce = safe_of(proposal), transaction.nonce
    executed = next((row for row in queue.at_nonce(safe, nonce) if row.is_executed), None)
    if executed is None:
        return ProposalOutcome(
            ProposalState.QUEUED, poll_seconds, f"nonce {nonce} is used, the Safe's queue does not tell by what yet"
        )
    if executed.safe_tx_hash == transaction.safe_tx_hash:
        if executed.is_successful is False:
            raise Refused(f"the Safe executed the transaction at nonce {nonce}, and its call failed")
        return ProposalOutcome(
            ProposalState.QUEUED,
            poll_seconds,
            transaction_state=SafeTransactionState.EXECUTED,
            transaction_hash=executed.transaction_hash,
        )
    replaced = SafeTransactionState.REPLACED
    if executed.safe_tx_hash == safe_tx_hash(chain.chain_id, safe, rejection_call(safe), nonce):
        return ProposalOutcome(
            ProposalState.REJECTED,
            None,
            f"the owners executed a rejection at nonce {nonce}",
            transaction_state=replaced,
        )
    return ProposalOutcome(
        ProposalState.POSTING,
        0.0,
        f"another transaction used nonce {nonce}, the next one is taken",
        transaction_state=replaced,
    )
