"""What the store makes of a proposal step's outcome, in memory."""

from dataclasses import replace

from service.domain.outcomes import ProposalOutcome
from service.domain.snapshots import Proposal, SafeTransaction


def stored(before: Proposal, outcome: ProposalOutcome, claimed: SafeTransaction | None = None) -> Proposal:
    """The proposal after ``outcome``; ``claimed`` is the transaction that the step made meanwhile."""
    transaction = claimed or before.transaction
    if transaction is not None:
        told = outcome.signatures
        transaction = replace(
            transaction,
            state=outcome.transaction_state or transaction.state,
            confirmations=transaction.confirmations if told is None else tuple(told),
            signature_kinds=transaction.signature_kinds if told is None else told,
            threshold=outcome.threshold or transaction.threshold,
            scan_from=outcome.scan_from or transaction.scan_from,
        )
    attempts = {None: before.attempts, False: 0, True: before.attempts + 1}[outcome.failed_attempt]
    return replace(
        before,
        state=outcome.state,
        detail=outcome.detail,
        attempts=attempts,
        transaction=transaction,
        alerts=(*before.alerts, *outcome.alerts),
        safe_seen=outcome.safe_seen or before.safe_seen,
        news_at=outcome.news_at or before.news_at,
        queue_due_at=outcome.queue_due_at or before.queue_due_at,
        delegate_checked_at=outcome.delegate_checked_at or before.delegate_checked_at,
    )
