"""By what a Safe's nonce was used: the chain's logs first, the queue as a hint when they do not tell."""

from dataclasses import dataclass

from service.domain.alerts import Alert, AlertCode, news
from service.domain.calls import rejection_call, safe_tx_hash
from service.domain.chain import Block, execution_at
from service.domain.errors import CountersignError
from service.domain.outcomes import ProposalOutcome
from service.domain.snapshots import Proposal, ProposalState, SafeTransaction, SafeTransactionState
from service.ports import Chain, SafeQueue
from service.steps.safe_transaction import safe_of


@dataclass(frozen=True, slots=True)
class Use:
    """The Safe transaction that used a nonce. ``success`` and ``transaction_hash`` are ``None`` when not told."""

    safe_tx_hash: str
    success: bool | None
    transaction_hash: str | None


def what_used(
    proposal: Proposal, transaction: SafeTransaction, chain: Chain, queue: SafeQueue, final: Block, next_nonce: int
) -> Use | None:
    """What used the nonce of ``transaction``, ``None`` when nobody tells yet.

    Args:
        proposal: whose transaction it is.
        transaction: its nonce is below ``next_nonce``.
        chain: its chain.
        queue: asked only when the chain's logs do not tell.
        final: a final block.
        next_nonce: the Safe's nonce at that block.

    Raises:
        CountersignError: neither of them answers.
    """
    return _by_chain(proposal, transaction, chain, final, next_nonce) or _by_queue(proposal, transaction, queue)


def rejection_hash(proposal: Proposal, nonce: int, chain_id: int) -> str:
    """SafeTxHash of the rejection at a nonce, whoever proposes it."""
    safe = safe_of(proposal)
    return safe_tx_hash(chain_id, safe, rejection_call(safe), nonce)


def _by_chain(
    proposal: Proposal, transaction: SafeTransaction, chain: Chain, final: Block, next_nonce: int
) -> Use | None:
    if transaction.scan_from is None:
        return None
    try:
        executions = chain.executions(safe_of(proposal), transaction.scan_from, final.number)
    except CountersignError:
        return None  # logs are one of two witnesses; if the other one fails too, its fault is shown
    known = {transaction.safe_tx_hash, rejection_hash(proposal, transaction.nonce, chain.chain_id)}
    named = next((one for one in executions if one.safe_tx_hash in known), None)
    found = named or execution_at(executions, transaction.nonce, next_nonce)
    return None if found is None else Use(found.safe_tx_hash, found.success, found.transaction_hash)


def _by_queue(proposal: Proposal, transaction: SafeTransaction, queue: SafeQueue) -> Use | None:
    rows = queue.at_nonce(safe_of(proposal), transaction.nonce)
    row = next((row for row in rows if row.is_executed), None)
    return None if row is None else Use(row.safe_tx_hash, row.is_successful, row.transaction_hash)


def after_use(proposal: Proposal, transaction: SafeTransaction, use: Use, chain_id: int) -> ProposalOutcome:
    """What becomes of a waiting proposal whose nonce is used for good."""
    nonce = transaction.nonce
    if use.safe_tx_hash == transaction.safe_tx_hash:
        executed = SafeTransactionState.EXECUTED
        if use.success is False:
            detail = f"the Safe executed the transaction at nonce {nonce}, and its call failed"
            return ProposalOutcome(
                ProposalState.FAILED,
                None,
                detail,
                transaction_state=executed,
                transaction_hash=use.transaction_hash,
            )
        return ProposalOutcome(
            ProposalState.QUEUED, 0.0, transaction_state=executed, transaction_hash=use.transaction_hash
        )
    replaced = SafeTransactionState.REPLACED
    if use.safe_tx_hash == rejection_hash(proposal, nonce, chain_id):
        detail = f"the owners executed a rejection at nonce {nonce}"
        return ProposalOutcome(ProposalState.REJECTED, None, detail, transaction_state=replaced)
    message = f"another transaction used nonce {nonce}: {use.safe_tx_hash}"
    return ProposalOutcome(
        ProposalState.POSTING,
        0.0,
        f"{message}; the approval is proposed again",
        transaction_state=replaced,
        alerts=news((Alert(AlertCode.TRANSACTION_REPLACED, message),), proposal.alerts),
    )
