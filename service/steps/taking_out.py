"""Taking a Safe transaction of ours out of the queue, where that harms nobody."""

from service.domain.chain import Block, SafeState
from service.domain.errors import Refused
from service.domain.snapshots import Proposal, SafeTransaction
from service.ports import Chain, QueuedTransaction, SafeQueue
from service.steps.safe_transaction import safe_of


def is_highest(proposal: Proposal, transaction: SafeTransaction, rows: list[QueuedTransaction]) -> bool:
    """Whether nothing queued, and nothing that another proposal of ours is about to queue, has a higher nonce."""
    return transaction.nonce >= max([row.nonce for row in rows] + list(proposal.held_nonces), default=0)


def find_in(rows: list[QueuedTransaction], transaction: SafeTransaction, queue: SafeQueue) -> QueuedTransaction | None:
    """``transaction`` among what is pending; asked for by itself where it is not: a list may hide or lag."""
    ours = next((row for row in rows if row.safe_tx_hash == transaction.safe_tx_hash), None)
    return ours or queue.get(transaction.safe, transaction.safe_tx_hash)


def is_taken_out(
    proposal: Proposal, transaction: SafeTransaction, safe: SafeState, *, chain: Chain, queue: SafeQueue, head: Block
) -> bool:
    """Whether ``transaction`` is out of the Safe's queue now; if it is there, it is deleted where that is harmless.

    One with signatures stays, because they stay usable; one below another stays, because a hole would block that one.

    Raises:
        CountersignError: a retryable fault; looking again finds out what came of a deletion.
    """
    rows = list(queue.pending(safe.address, safe.nonce))
    ours = find_in(rows, transaction, queue)
    if ours is None:
        return True
    if ours.confirmations or not is_highest(proposal, transaction, rows):
        return False
    if chain.approved_hashes(safe.address, transaction.safe_tx_hash, safe.owners, head):
        return False
    return is_deleted(proposal, transaction, queue)


def is_deleted(proposal: Proposal, transaction: SafeTransaction, queue: SafeQueue) -> bool:
    """Delete it; ``False`` when the service refuses, such as for a proposal of an earlier key."""
    try:
        queue.delete(safe_of(proposal), transaction.safe_tx_hash)
    except Refused:
        return False
    return True
