"""Proposal in ``queued``: who signed, whether its nonce was used, and what changed about its Safe.

The chain is read at each look and needs no queue: owners, threshold, nonce, executions, approvals on chain. The queue
is a hint with a small quota, asked on a schedule of its own. Signatures count only when they recover to the current
owner under whom they are listed, over the safeTxHash computed here; a nonce counts as used only at a final block.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from service.domain.alerts import Alert, AlertCode, news
from service.domain.chain import ChainView, SafeState
from service.domain.errors import CountersignError, Refused
from service.domain.outcomes import ProposalOutcome
from service.domain.schedules import SAFE_SERVICE_BACKOFF_SECONDS, SafePace, safe_service_backoff
from service.domain.signatures import SignatureKind
from service.domain.snapshots import (
    LIVE_SAFE_TRANSACTION,
    Proposal,
    ProposalState,
    SafeTransaction,
    SafeTransactionState,
)
from service.ports import Chain, Clock, SafeQueue
from service.steps.queue_look import QueueLook, look_at_queue
from service.steps.safe_changes import safe_changes, seen
from service.steps.safe_transaction import is_approved, safe_state, verified_approval
from service.steps.used_nonce import after_use, what_used

_FINALITY_SECONDS: Final = 15.0


def signatures(
    proposal: Proposal, *, chain: Chain, queue: SafeQueue, proposer: str, clock: Clock, pace: SafePace
) -> ProposalOutcome:
    """Serve a proposal in ``queued``.

    Args:
        proposal: the snapshot.
        chain: its chain.
        queue: Safe Transaction Service of that chain.
        proposer: checksummed address of the service's own key.
        clock: the time.
        pace: when to look again.

    Raises:
        CountersignError: a retryable fault.
    """
    if not proposal.members:
        return ProposalOutcome(ProposalState.WITHDRAWING, 0.0)
    transaction = proposal.transaction
    if transaction is None:
        return ProposalOutcome(ProposalState.POSTING, 0.0)
    if transaction.state is SafeTransactionState.EXECUTED:
        return _executed(proposal, transaction, chain, pace)
    if transaction.state not in LIVE_SAFE_TRANSACTION:
        return ProposalOutcome(ProposalState.POSTING, 0.0)
    try:
        verified_approval(proposal, transaction, chain.chain_id)
        return _Look(proposal, transaction, chain, queue, proposer, clock.now(), pace).outcome()
    except Refused as no:
        return ProposalOutcome(ProposalState.FAILED, None, no.detail)


def _executed(proposal: Proposal, transaction: SafeTransaction, chain: Chain, pace: SafePace) -> ProposalOutcome:
    """Its requests decide by the allowlist, and the queue has nothing more to say. Nobody may wait for what is over."""
    view = chain.view()
    final = safe_state(proposal, chain, view.final).nonce > transaction.nonce
    if not final or is_approved(proposal, chain, view.final) or is_approved(proposal, chain, view.head):
        return ProposalOutcome(ProposalState.QUEUED, pace.poll_seconds)
    detail = f"the Safe executed it at nonce {transaction.nonce}, and what it allowed was taken away again"
    return ProposalOutcome(ProposalState.FAILED, None, detail)


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at a live Safe transaction."""

    proposal: Proposal
    transaction: SafeTransaction
    chain: Chain
    queue: SafeQueue
    proposer: str
    now: datetime
    pace: SafePace

    def outcome(self) -> ProposalOutcome:
        """What came of it."""
        view = self.chain.view()
        safe = safe_state(self.proposal, self.chain, view.head)
        if safe.nonce > self.transaction.nonce:
            return self._used(view)
        tx_hash = self.transaction.safe_tx_hash
        approved = self.chain.approved_hashes(safe.address, tx_hash, safe.owners, view.head)
        alerts = safe_changes(self.proposal.safe_seen, safe, self.proposer)
        changed = [alert for alert in alerts if alert.code is not AlertCode.PROPOSER_IS_OWNER]
        known = ProposalOutcome(
            ProposalState.QUEUED,
            0.0,
            threshold=safe.threshold,
            safe_seen=seen(safe),
            scan_from=view.final.number + 1,  # the nonce was free in the final block
            # What changed is news each time, even if it changed likewise before.
            alerts=(*changed, *news(tuple(alert for alert in alerts if alert not in changed), self.proposal.alerts)),
        )
        due_at = self.proposal.queue_due_at
        if due_at is not None and self.now < due_at:
            return self._timed(self._by_chain(known, safe, approved), due_at)
        try:
            return self._by_queue(known, safe, approved)
        except CountersignError as fault:
            if not fault.retryable:
                raise
            return self._without_queue(known, safe, approved, fault)

    def _used(self, view: ChainView) -> ProposalOutcome:
        final = safe_state(self.proposal, self.chain, view.final)
        nonce = self.transaction.nonce
        wait = min(self.pace.poll_seconds, _FINALITY_SECONDS)
        if final.nonce <= nonce:
            return ProposalOutcome(ProposalState.QUEUED, wait, f"nonce {nonce} is used, not final yet")
        use = what_used(self.proposal, self.transaction, self.chain, self.queue, view.final, final.nonce)
        if use is not None:
            return after_use(self.proposal, self.transaction, use, self.chain.chain_id)
        tries = self.proposal.attempts + 1
        # Each look costs a request, and one that nobody answers may be repeated until the requests end.
        patient = tries > len(SAFE_SERVICE_BACKOFF_SECONDS)
        wait = self.pace.queue_wait(timedelta(days=1)) if patient else safe_service_backoff(tries)
        detail = f"nonce {nonce} is used, neither the chain's logs nor the Safe's queue tell by what yet"
        return ProposalOutcome(ProposalState.QUEUED, wait, detail, failed_attempt=True)

    def _by_chain(self, known: ProposalOutcome, safe: SafeState, approved: frozenset[str]) -> ProposalOutcome:
        """Signatures that the queue told earlier stand as long as their owner does; those on chain are read anew."""
        signed = {owner: kind for owner in safe.owners if (kind := self._kind_of(owner, approved)) is not None}
        before = self.transaction.contract_signatures
        contracts = tuple(owner for owner in before if owner in safe.owners and owner not in signed)
        told = replace(known, signatures=signed, contract_signatures=contracts)
        return replace(told, detail=self.proposal.detail, failed_attempt=None)

    def _kind_of(self, owner: str, approved: frozenset[str]) -> SignatureKind | None:
        kind = self.transaction.signature_kinds.get(owner)
        if kind is None or kind is SignatureKind.APPROVED_HASH:
            return SignatureKind.APPROVED_HASH if owner in approved else None
        return kind

    def _by_queue(self, known: ProposalOutcome, safe: SafeState, approved: frozenset[str]) -> ProposalOutcome:
        chain_id = self.chain.chain_id
        look = look_at_queue(self.proposal, self.transaction, safe, approved, queue=self.queue, chain_id=chain_id)
        if not isinstance(look, QueueLook):
            return replace(look, alerts=(*known.alerts, *look.alerts), safe_seen=known.safe_seen, news_at=self.now)
        delegates = self._delegates(safe)
        told = replace(
            known,
            signatures=look.tally.signed,
            contract_signatures=look.tally.contracts,
            detail=look.detail,
            alerts=(*known.alerts, *news((*look.alerts, *(delegates or ())), self.proposal.alerts)),
            delegate_checked_at=None if delegates is None else self.now,
            is_delegate=None if delegates is None else not delegates,
        )
        return self._timed(told, None)

    def _delegates(self, safe: SafeState) -> tuple[Alert, ...] | None:
        """Whether the service's key is a delegate still; ``None`` when it is not time to ask."""
        before = self.proposal.safe_seen
        same_owners = before is not None and set(before.owners) == set(safe.owners)
        if same_owners and not self.pace.delegate_due(self.proposal.delegate_checked_at, self.now):
            return None
        if not self.queue.delegators(safe.address, self.proposer).isdisjoint(safe.owners):
            return ()
        message = f"the service's key {self.proposer} is no delegate of an owner of {safe.address} any more"
        return (Alert(AlertCode.PROPOSER_NOT_DELEGATE, message),)

    def _without_queue(
        self, known: ProposalOutcome, safe: SafeState, approved: frozenset[str], fault: CountersignError
    ) -> ProposalOutcome:
        """The chain's news count all the same, and the queue is asked again later and later."""
        again = self.now + timedelta(seconds=safe_service_backoff(self.proposal.attempts + 1, fault.retry_after))
        told = replace(self._by_chain(known, safe, approved), detail=fault.detail, failed_attempt=True)
        return self._timed(told, again)

    def _timed(self, told: ProposalOutcome, queue_due_at: datetime | None) -> ProposalOutcome:
        """When to look again; without ``queue_due_at`` the queue was asked just now."""
        is_news = bool(told.alerts) or self._is_news(told)
        news_at = self.now if is_news else self.proposal.news_at or self.now
        age = self.now - news_at
        asked_again = self.now + timedelta(seconds=self.pace.queue_wait(age))
        if queue_due_at is None:
            queue_due_at = asked_again
        elif is_news and told.failed_attempt is None and not self.proposal.attempts:
            queue_due_at = min(queue_due_at, asked_again)  # who acted on chain may have acted in the queue, too
        wait = min(self.pace.chain_wait(age), (queue_due_at - self.now).total_seconds())
        return replace(told, wait_seconds=wait, news_at=news_at, queue_due_at=queue_due_at)

    def _is_news(self, told: ProposalOutcome) -> bool:
        before = self.transaction
        seen_before = (set(before.confirmations), set(before.contract_signatures), before.threshold)
        return (set(told.signatures or ()), set(told.contract_signatures or ()), told.threshold) != seen_before
