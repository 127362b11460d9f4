"""One look at a Safe's queue for a waiting approval: signatures, who else is there, what is missing below."""

from dataclasses import dataclass
from typing import Final

from service.domain.alerts import Alert, AlertCode, news
from service.domain.chain import SafeState
from service.domain.outcomes import ProposalOutcome
from service.domain.signatures import Tally, tally
from service.domain.snapshots import Proposal, ProposalState, SafeTransaction, SafeTransactionState
from service.ports import QueuedTransaction, SafeQueue
from service.steps.taking_out import find_in, is_deleted, is_highest
from service.steps.used_nonce import rejection_hash

_REINDEXING: Final = "the Safe Transaction Service calls it executed, the chain does not"


@dataclass(frozen=True, slots=True)
class QueueLook:
    """What the queue says.

    Attributes:
        tally: who signed.
        alerts: what members are to be told, if they were not.
        detail: one line for people.
    """

    tally: Tally
    alerts: tuple[Alert, ...]
    detail: str | None


def look_at_queue(
    proposal: Proposal,
    transaction: SafeTransaction,
    safe: SafeState,
    approved: frozenset[str],
    *,
    queue: SafeQueue,
    chain_id: int,
) -> QueueLook | ProposalOutcome:
    """Look, and repair what can be repaired: then the answer is an outcome.

    Args:
        proposal: the snapshot.
        transaction: its approval, checked against what it asks for.
        safe: the Safe at the head.
        approved: owners who approved the hash on chain at the head.
        queue: Safe Transaction Service of its chain.
        chain_id: of its chain.

    Raises:
        CountersignError: the queue does not answer.
    """
    rows = list(queue.pending(safe.address, safe.nonce))
    ours = find_in(rows, transaction, queue)
    if ours is None:
        return _vanished(proposal, transaction)
    counted = tally(transaction.safe_tx_hash, ours.confirmations, safe.owners, approved)
    alerts, details = _about_signatures(transaction, counted), []
    if ours.is_executed:
        details.append(_REINDEXING)
    others = [row for row in rows if row.nonce == transaction.nonce and row.safe_tx_hash != transaction.safe_tx_hash]
    rejection = rejection_hash(proposal, transaction.nonce, chain_id)
    for row in others:
        alerts.append(_about_other(row, rejection))
        details.append(alerts[-1].message)
    repair = _about_hole(proposal, transaction, safe, rows, ours, approved, queue)
    if isinstance(repair, ProposalOutcome):
        return repair
    if repair is not None:
        alerts.append(repair)
        details.append(repair.message)
    if counted.contracts:
        details.append(f"signatures of contracts are not verified here: {', '.join(counted.contracts)}")
    details += [alert.message for alert in alerts if alert.code is AlertCode.WRONG_SIGNATURE]
    return QueueLook(counted, tuple(alerts), "; ".join(details) or None)


def _about_hole(
    proposal: Proposal,
    transaction: SafeTransaction,
    safe: SafeState,
    rows: list[QueuedTransaction],
    ours: QueuedTransaction,
    approved: frozenset[str],
    queue: SafeQueue,
) -> ProposalOutcome | Alert | None:
    """Close a hole below ours by moving it there, if nobody signed it and nothing stands above it; else tell."""
    hole = first_hole(proposal, safe.nonce, transaction.nonce, rows)
    if hole is None:
        return None
    missing = _missing(transaction, hole)
    movable = not (ours.confirmations or approved or ours.is_executed) and is_highest(proposal, transaction, rows)
    if not movable and missing in proposal.alerts:
        return missing
    if queue.at_nonce(safe.address, hole):
        return None  # the node is behind the service, or the service behind a reorg
    return _moved(transaction, hole) if movable and is_deleted(proposal, transaction, queue) else missing


def first_hole(proposal: Proposal, chain_nonce: int, nonce: int, rows: list[QueuedTransaction]) -> int | None:
    """The lowest nonce below ours at which nothing is known, neither queued nor about to be queued by us."""
    known = {row.nonce for row in rows} | proposal.held_nonces
    return next((number for number in range(chain_nonce, nonce) if number not in known), None)


def _vanished(proposal: Proposal, transaction: SafeTransaction) -> ProposalOutcome:
    message = f"the transaction at nonce {transaction.nonce} vanished from the Safe's queue and is posted again"
    return ProposalOutcome(
        ProposalState.POSTING,
        0.0,
        message,
        transaction_state=SafeTransactionState.INTENDED,
        alerts=news((Alert(AlertCode.TRANSACTION_VANISHED, message),), proposal.alerts),
    )


def _moved(transaction: SafeTransaction, hole: int) -> ProposalOutcome:
    detail = f"nothing is known at nonce {hole}: the unsigned transaction at nonce {transaction.nonce} is moved there"
    return ProposalOutcome(ProposalState.POSTING, 0.0, detail, transaction_state=SafeTransactionState.DELETED)


def _about_signatures(transaction: SafeTransaction, counted: Tally) -> list[Alert]:
    return [
        Alert(
            AlertCode.WRONG_SIGNATURE,
            f"the signature listed under {owner} for nonce {transaction.nonce} is not theirs and does not count",
        )
        for owner in counted.wrong
    ]


def _about_other(row: QueuedTransaction, rejection: str) -> Alert:
    if row.safe_tx_hash == rejection:
        return Alert(AlertCode.REJECTION_QUEUED, f"a rejection is queued at nonce {row.nonce}: {row.safe_tx_hash}")
    message = f"another transaction is queued at nonce {row.nonce}: {row.safe_tx_hash}"
    return Alert(AlertCode.OTHER_AT_NONCE, message)


def _missing(transaction: SafeTransaction, hole: int) -> Alert:
    message = f"nothing is known at nonce {hole}: the transaction at nonce {transaction.nonce} cannot execute before"
    return Alert(AlertCode.NONCE_MISSING, message)
