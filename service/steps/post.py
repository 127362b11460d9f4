"""Proposal in ``posting``: claim a nonce, sign as a delegate, and put the transaction into the Safe's queue."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.domain.calls import approval_call, safe_tx_hash
from service.domain.chain import ChainView, SafeState
from service.domain.errors import Refused
from service.domain.outcomes import ProposalOutcome
from service.domain.snapshots import (
    LIVE_SAFE_TRANSACTION,
    Proposal,
    ProposalState,
    SafeTransaction,
    SafeTransactionState,
)
from service.ports import Chain, Clock, ProposalIntents, QueuedTransaction, SafeQueue, Signer
from service.steps.queue_look import first_hole
from service.steps.safe_changes import seen
from service.steps.safe_transaction import delegate_only, is_approved, safe_of, safe_state, verified_approval

_FIRST_LOOK_SECONDS: Final = 1.0
_ALLOWED_SECONDS: Final = 15.0
_BEHIND_SECONDS: Final = 15.0


def post(
    proposal: Proposal,
    *,
    chain: Chain,
    queue: SafeQueue,
    signer: Signer,
    intents: ProposalIntents,
    clock: Clock,
    origin: str,
) -> ProposalOutcome:
    """Serve a proposal in ``posting``.

    Args:
        proposal: the snapshot.
        chain: its chain.
        queue: Safe Transaction Service of that chain.
        signer: the service's own key.
        intents: stores the nonce and safeTxHash before they are posted.
        clock: the time.
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
        return _Post(proposal, chain, queue, signer, intents, clock, origin).outcome()
    except Refused as no:
        return ProposalOutcome(ProposalState.FAILED, None, no.detail)


@dataclass(frozen=True, slots=True)
class _Post:
    """One try."""

    proposal: Proposal
    chain: Chain
    queue: SafeQueue
    signer: Signer
    intents: ProposalIntents
    clock: Clock
    origin: str

    def outcome(self) -> ProposalOutcome:
        """What came of it."""
        view = self.chain.view()
        if is_approved(self.proposal, self.chain, view.head):
            # Owners would sign for nothing. Its requests end it once that is final; after a reorg it is posted.
            detail = f"allowed on chain at block {view.head.number}"
            return ProposalOutcome(ProposalState.POSTING, _ALLOWED_SECONDS, detail)
        safe = safe_state(self.proposal, self.chain, view.head)
        transaction = self.proposal.transaction
        if transaction is None or transaction.state not in LIVE_SAFE_TRANSACTION:
            return self._claim(safe, view)
        verified_approval(self.proposal, transaction, self.chain.chain_id)
        if self.queue.get(transaction.safe, transaction.safe_tx_hash) is not None:
            return self._queued(safe)
        if safe.nonce > transaction.nonce:
            return _replaced(transaction, 0.0)
        hole = first_hole(self.proposal, safe.nonce, transaction.nonce, self._rows(safe))
        if hole is not None and not self.queue.at_nonce(safe.address, hole):
            detail = f"nothing is known at nonce {hole}: it is taken instead of {transaction.nonce}"
            return _given_up(detail, SafeTransactionState.DELETED, 0.0)
        return self._send(transaction, safe)

    def _claim(self, safe: SafeState, view: ChainView) -> ProposalOutcome:
        delegate_only(self.signer, safe)
        rows, scan_from = self._rows(safe), view.final.number + 1
        occupied = {row.nonce for row in rows}
        forgotten = self._forgotten(rows)
        if forgotten is not None:
            transaction = self.intents.claim_nonce(forgotten, occupied - {forgotten}, scan_from)
        else:
            transaction = self.intents.claim_nonce(safe.nonce, occupied, scan_from)
        verified_approval(self.proposal, transaction, self.chain.chain_id)
        return self._queued(safe) if transaction.nonce == forgotten else self._send(transaction, safe)

    def _forgotten(self, rows: Sequence[QueuedTransaction]) -> int | None:
        """The nonce of the very transaction that is about to be proposed, when it waits in the queue already.

        After a restored backup the queue knows what the database does not: owners must not sign the same twice. One
        that the database does know was given up, and one with another beside it is contested.
        """
        safe, chain_id = safe_of(self.proposal), self.chain.chain_id
        call = approval_call(self.proposal.app_contract, self.proposal.compose_hash, self.proposal.devices)
        at = Counter(row.nonce for row in rows)
        for row in sorted(rows, key=lambda row: row.nonce):
            same = at[row.nonce] == 1 and row.safe_tx_hash == safe_tx_hash(chain_id, safe, call, row.nonce)
            if same and not self.intents.knows(row.safe_tx_hash):
                return row.nonce
        return None

    def _rows(self, safe: SafeState) -> list[QueuedTransaction]:
        return list(self.queue.pending(safe_of(self.proposal), safe.nonce))

    def _send(self, transaction: SafeTransaction, safe: SafeState) -> ProposalOutcome:
        delegate_only(self.signer, safe)
        signature = self.signer.sign(transaction.safe_tx_hash)
        try:
            self.queue.post(transaction, signature, self.signer.address, self.origin)
        except Refused as no:
            now = safe_state(self.proposal, self.chain, self.chain.view().head)
            if now.nonce > transaction.nonce:
                return _replaced(transaction, 0.0)
            if any(row.is_executed for row in self.queue.at_nonce(now.address, transaction.nonce)):
                return _replaced(transaction, _BEHIND_SECONDS)  # the node that was asked does not know yet
            return ProposalOutcome(
                ProposalState.FAILED, None, no.detail, transaction_state=SafeTransactionState.DELETED
            )
        return self._queued(safe)

    def _queued(self, safe: SafeState) -> ProposalOutcome:
        now = self.clock.now()
        return ProposalOutcome(
            ProposalState.QUEUED,
            _FIRST_LOOK_SECONDS,
            transaction_state=SafeTransactionState.QUEUED,
            threshold=safe.threshold,
            safe_seen=self.proposal.safe_seen or seen(safe),
            news_at=now,
            queue_due_at=now,
            delegate_checked_at=now,
        )


def _replaced(transaction: SafeTransaction, wait_seconds: float) -> ProposalOutcome:
    detail = f"another transaction used nonce {transaction.nonce}, the next one is taken"
    return _given_up(detail, SafeTransactionState.REPLACED, wait_seconds)


def _given_up(detail: str, state: SafeTransactionState, wait_seconds: float) -> ProposalOutcome:
    return ProposalOutcome(ProposalState.POSTING, wait_seconds, detail, transaction_state=state)
