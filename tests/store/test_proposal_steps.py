"""What the holder of a proposal writes: nonces claimed before anything is posted, and what a step brings back."""

from datetime import timedelta

import pytest

from service.domain.alerts import ALERTS_PER_CODE, AND_MORE, Alert, AlertCode
from service.domain.calls import approval_call, rejection_call, safe_tx_hash
from service.domain.errors import LeaseLost
from service.domain.outcomes import Advance, ProposalOutcome
from service.domain.signatures import SignatureKind
from service.domain.snapshots import Proposal as Snapshot
from service.domain.snapshots import ProposalState, SafeSeen, SafeTransactionKind, SafeTransactionState
from service.domain.states import State
from service.store import proposals, transitions
from service.store.database import Database
from service.store.proposals import StoredProposalIntents
from service.store.tables import ChangeRequest, Proposal
from tests.support import rows
from tests.support.members import EVIDENCE, every_proposal, join, member, move, snapshot
from tests.support.threads import together


class TestNonces:
    def _posting(self, database: Database, workspace: str, **columns: object) -> StoredProposalIntents:
        number = len(every_proposal(database)) + 1
        values = {"compose_hash": f"0x{number:064x}"} | columns
        proposal_id = rows.proposal(database, workspace, ProposalState.POSTING, **values)
        return StoredProposalIntents(database, rows.lease(database, Proposal, proposal_id))

    def test_an_approval_is_stored_before_it_is_posted(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace, ProposalState.POSTING, devices=[rows.DEVICE])
        intents = StoredProposalIntents(database, rows.lease(database, Proposal, proposal_id))
        claimed = intents.claim_nonce(7)
        call = approval_call(rows.APP, rows.COMPOSE_HASH, (rows.DEVICE,))
        assert (claimed.nonce, claimed.call, claimed.state) == (7, call, SafeTransactionState.INTENDED)
        assert claimed.safe_tx_hash == safe_tx_hash(rows.CHAIN_ID, rows.SAFE, call, 7)
        assert snapshot(database, proposal_id).transaction == claimed

    def test_many_at_once_get_one_each_without_a_hole(self, database: Database, workspace: str):
        spaces = [workspace, rows.workspace(database, "other")]
        intents = [self._posting(database, spaces[number % 2]) for number in range(10)]
        claimed = together([lambda each=each: each.claim_nonce(5).nonce for each in intents])
        assert sorted(claimed) == list(range(5, 15))

    def test_the_lowest_that_is_free_in_the_queue_and_with_us_is_taken(self, database: Database, workspace: str):
        assert [self._posting(database, workspace).claim_nonce(5, {6, 8}).nonce for _ in range(3)] == [5, 7, 9]

    def test_the_step_sees_what_other_live_proposals_hold(self, database: Database, workspace: str):
        live = rows.proposal(database, workspace, compose_hash=rows.OTHER_HASH)
        rows.approval(database, live, 5)
        ended = rows.proposal(database, workspace, ProposalState.FAILED, compose_hash=rows.OTHER_HASH)
        rows.approval(database, ended, 6)
        elsewhere = rows.proposal(database, workspace, safe=rows.OTHER_SAFE, compose_hash="0x" + "03" * 32)
        rows.approval(database, elsewhere, 7)
        mine = rows.proposal(database, workspace)
        rows.approval(database, mine, 8)
        assert snapshot(database, mine).held_nonces == {5}
        assert snapshot(database, live).held_nonces == {8}

    def test_the_block_to_look_from_is_kept(self, database: Database, workspace: str):
        assert self._posting(database, workspace).claim_nonce(5, scan_from=1234).scan_from == 1234

    def test_each_safe_and_chain_counts_for_itself(self, database: Database, workspace: str):
        places = [{}, {"safe": rows.OTHER_SAFE}, {"chain_id": 1}]
        intents = [self._posting(database, workspace, **place) for place in places]
        assert [each.claim_nonce(3).nonce for each in intents] == [3, 3, 3]

    def test_the_queue_may_be_further_than_we_are(self, database: Database, workspace: str):
        assert self._posting(database, workspace).claim_nonce(3).nonce == 3
        assert self._posting(database, workspace).claim_nonce(9).nonce == 9
        assert self._posting(database, workspace).claim_nonce(4).nonce == 4

    @pytest.mark.parametrize(
        "state", [SafeTransactionState.EXECUTED, SafeTransactionState.REPLACED, SafeTransactionState.DELETED]
    )
    def test_what_is_over_holds_no_nonce(self, database: Database, workspace: str, state: SafeTransactionState):
        live = rows.proposal(database, workspace, compose_hash=rows.OTHER_HASH)
        rows.approval(database, live, 5, state)
        assert self._posting(database, workspace).claim_nonce(5).nonce == 5

    @pytest.mark.parametrize("ended", [ProposalState.FAILED, ProposalState.APPROVED, ProposalState.WITHDRAWN])
    @pytest.mark.parametrize("state", [SafeTransactionState.INTENDED, SafeTransactionState.QUEUED])
    def test_a_proposal_that_ended_leaves_no_hole(
        self, database: Database, workspace: str, ended: ProposalState, state: SafeTransactionState
    ):
        """The queue says that 5 is free: whatever was meant to stand there does not."""
        over = rows.proposal(database, workspace, ended, compose_hash=rows.OTHER_HASH)
        rows.approval(database, over, 5, state)
        assert self._posting(database, workspace).claim_nonce(5).nonce == 5
        assert [row.state for row in rows.transactions(database, over)] == ["replaced"]

    def test_a_nonce_is_not_claimed_twice_for_one_proposal(self, database: Database, workspace: str):
        intents = self._posting(database, workspace)
        intents.claim_nonce(5)
        with pytest.raises(Exception, match="uq_safe_transactions_live_approval_of_proposal"):
            intents.claim_nonce(6)

    def test_nothing_is_claimed_for_a_proposal_that_everybody_left(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace, ProposalState.POSTING)
        request_id = member(database, workspace, proposal_id, State.PREPARED)
        intents = StoredProposalIntents(database, rows.lease(database, Proposal, proposal_id))
        move(database, request_id, State.PREPARED, State.CANCELLED)
        with pytest.raises(LeaseLost):
            intents.claim_nonce(0)
        assert rows.transactions(database, proposal_id) == []
        assert rows.is_due(database, Proposal, proposal_id), "the withdrawal need not wait for the lease to end"

    def test_a_rejection_takes_the_nonce_of_its_approval(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace, ProposalState.WITHDRAWING)
        rows.approval(database, proposal_id, 4)
        intents = StoredProposalIntents(database, rows.lease(database, Proposal, proposal_id))
        rejection = intents.intend_rejection(4)
        call = rejection_call(rows.SAFE)
        assert (rejection.kind, rejection.nonce, rejection.call) == (SafeTransactionKind.REJECTION, 4, call)
        assert intents.intend_rejection(4) == rejection, "once is enough"
        assert len(rows.transactions(database, proposal_id)) == 2

    def test_nothing_is_rejected_that_is_not_withdrawn_any_more(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace, ProposalState.WITHDRAWING)
        rows.approval(database, proposal_id, 4)
        request_id = member(database, workspace, proposal_id, State.EXECUTED)
        intents = StoredProposalIntents(database, rows.lease(database, Proposal, proposal_id))
        move(database, request_id, State.EXECUTED, State.REGISTERED, EVIDENCE)
        with pytest.raises(LeaseLost):
            intents.intend_rejection(4)
        assert [row.kind for row in rows.transactions(database, proposal_id)] == ["approval"]
        assert rows.is_due(database, Proposal, proposal_id), "what is left in the queue need not wait for the lease"

    def test_the_newest_is_the_one_claimed_last_whatever_the_clocks_say(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace, ProposalState.POSTING)
        rows.approval(database, proposal_id, 4, SafeTransactionState.REPLACED, id="stx_from_a_fast_clock")
        claimed = StoredProposalIntents(database, rows.lease(database, Proposal, proposal_id)).claim_nonce(5)
        assert claimed.id < "stx_from_a_fast_clock"
        assert snapshot(database, proposal_id).transaction == claimed


class TestApply:
    def _queued(self, database: Database, workspace: str, **columns: object) -> tuple[str, Snapshot]:
        proposal_id = rows.proposal(database, workspace, **columns)
        rows.approval(database, proposal_id, 4)
        member(database, workspace, proposal_id)
        return proposal_id, snapshot(database, proposal_id)

    def _apply(self, database: Database, before: Snapshot, outcome: ProposalOutcome) -> None:
        proposals.apply(database, rows.lease(database, Proposal, before.id), before, outcome)

    def test_it_stores_what_the_step_saw(self, database: Database, workspace: str):
        proposal_id, before = self._queued(database, workspace)
        owners = ("0x" + "11" * 20, "0x" + "22" * 20)
        signed = dict.fromkeys(owners, SignatureKind.EIP712)
        outcome = ProposalOutcome(ProposalState.QUEUED, 30, "2 of 3", signatures=signed, threshold=3)
        self._apply(database, before, outcome)
        after = snapshot(database, proposal_id)
        assert after.transaction is not None
        assert (after.transaction.confirmations, after.transaction.threshold, after.detail) == (owners, 3, "2 of 3")
        assert 25 < (rows.due_in(database, Proposal, proposal_id) or 0) <= 30
        assert rows.read(database, Proposal, proposal_id).lease_until is None

    @pytest.mark.parametrize(
        ("outcome", "rings"),
        [
            (ProposalOutcome(ProposalState.QUEUED, 30), False),
            (ProposalOutcome(ProposalState.QUEUED, 30, "only words"), False),
            (ProposalOutcome(ProposalState.QUEUED, 30, signatures={}, threshold=3), False),
            (ProposalOutcome(ProposalState.QUEUED, 30, signatures={"0x" + "11" * 20: SignatureKind.ETH_SIGN}), True),
            (ProposalOutcome(ProposalState.QUEUED, 30, threshold=2), True),
            (ProposalOutcome(ProposalState.QUEUED, 30, transaction_hash="0x" + "aa" * 32), True),
            (ProposalOutcome(ProposalState.POSTING, 0, transaction_state=SafeTransactionState.REPLACED), True),
            (ProposalOutcome(ProposalState.REJECTED, None), True),
        ],
    )
    def test_members_are_rung_for_when_there_is_news(
        self, database: Database, workspace: str, outcome: ProposalOutcome, rings: bool
    ):
        proposal_id = rows.proposal(database, workspace)
        rows.approval(database, proposal_id, 4, threshold=3)
        waiting, other = member(database, workspace, proposal_id), rows.change_request(database, workspace)
        ended = member(database, workspace, proposal_id, State.CANCELLED)
        for each in (waiting, other):
            rows.shift(database, ChangeRequest, each, due_at=600)
        self._apply(database, snapshot(database, proposal_id), outcome)
        assert rows.is_due(database, ChangeRequest, waiting) == rings
        assert not rows.is_due(database, ChangeRequest, other)
        assert rows.read(database, ChangeRequest, ended).due_at is None

    def test_failed_attempts_are_counted_until_one_succeeds(self, database: Database, workspace: str):
        _, before = self._queued(database, workspace)
        for attempts, failed in ((1, True), (2, True), (0, False)):
            self._apply(database, before, ProposalOutcome(ProposalState.QUEUED, 0, failed_attempt=failed))
            assert rows.read(database, Proposal, before.id).attempts == attempts

    def test_an_end_is_due_no_more(self, database: Database, workspace: str):
        _, before = self._queued(database, workspace)
        self._apply(database, before, ProposalOutcome(ProposalState.FAILED, None, "no"))
        row = rows.read(database, Proposal, before.id)
        assert (row.state, row.detail, row.due_at, row.lease_until) == ("failed", "no", None, None)

    def test_what_was_seen_of_safe_and_queue_is_kept_until_something_newer(self, database: Database, workspace: str):
        proposal_id, before = self._queued(database, workspace)
        seen = SafeSeen(("0x" + "11" * 20,), 1, "0x" + "22" * 20, None)
        later = rows.NOW + timedelta(hours=1)
        times = {"news_at": rows.NOW, "queue_due_at": later, "delegate_checked_at": rows.NOW}
        self._apply(database, before, ProposalOutcome(ProposalState.QUEUED, 0, safe_seen=seen, scan_from=9, **times))
        self._apply(database, snapshot(database, proposal_id), ProposalOutcome(ProposalState.QUEUED, 30))
        after = snapshot(database, proposal_id)
        assert (after.safe_seen, after.news_at, after.queue_due_at) == (seen, rows.NOW, later)
        assert after.transaction is not None
        assert after.transaction.scan_from == 9

    def test_alerts_are_added_and_rung_for(self, database: Database, workspace: str):
        proposal_id, before = self._queued(database, workspace)
        (request_id,) = before.members
        alerts = [Alert(AlertCode.OTHER_AT_NONCE, f"another {number}") for number in range(3)]
        self._apply(database, before, ProposalOutcome(ProposalState.QUEUED, 0, alerts=(alerts[0],)))
        rows.shift(database, ChangeRequest, request_id, due_at=600)
        self._apply(
            database,
            snapshot(database, proposal_id),
            ProposalOutcome(ProposalState.QUEUED, 30, alerts=tuple(alerts[1:])),
        )
        assert snapshot(database, proposal_id).alerts == tuple(alerts)
        assert rows.is_due(database, ChangeRequest, request_id)

    def test_alerts_of_one_code_end_and_hide_no_other(self, database: Database, workspace: str):
        proposal_id, before = self._queued(database, workspace)
        many = tuple(Alert(AlertCode.WRONG_SIGNATURE, f"no {number}") for number in range(ALERTS_PER_CODE + 2))
        other = Alert(AlertCode.OWNERS_CHANGED, "another owner")
        for told in (many, (other, many[-1])):
            self._apply(database, before, ProposalOutcome(ProposalState.QUEUED, 0, alerts=told))
        last = Alert(AlertCode.WRONG_SIGNATURE, AND_MORE)
        assert snapshot(database, proposal_id).alerts == (*many[: ALERTS_PER_CODE - 1], last, other)

    @pytest.mark.parametrize(("failed", "attempts"), [(True, 6), (None, 5), (False, 0)])
    def test_attempts_are_counted_left_or_forgotten(
        self, database: Database, workspace: str, failed: bool | None, attempts: int
    ):
        proposal_id, before = self._queued(database, workspace, attempts=5)
        self._apply(database, before, ProposalOutcome(ProposalState.QUEUED, 30, failed_attempt=failed))
        assert rows.read(database, Proposal, proposal_id).attempts == attempts

    def test_a_proposal_that_is_served_cannot_be_forgotten(self, database: Database, workspace: str):
        _, before = self._queued(database, workspace)
        with pytest.raises(Exception, match="served_is_due"):
            self._apply(database, before, ProposalOutcome(ProposalState.QUEUED, None))
        assert snapshot(database, before.id).state is ProposalState.QUEUED

    def test_when_the_last_member_left_meanwhile_only_the_facts_are_stored(self, database: Database, workspace: str):
        """It was posted after all: the withdrawal must know."""
        proposal_id = rows.proposal(database, workspace, ProposalState.POSTING)
        rows.approval(database, proposal_id, 4, SafeTransactionState.INTENDED)
        request_id = member(database, workspace, proposal_id, State.PREPARED)
        lease, before = rows.lease(database, Proposal, proposal_id), snapshot(database, proposal_id)
        move(database, request_id, State.PREPARED, State.CANCELLED)
        posted = ProposalOutcome(ProposalState.QUEUED, 30, transaction_state=SafeTransactionState.QUEUED, threshold=2)
        proposals.apply(database, lease, before, posted)
        after = snapshot(database, proposal_id)
        assert after.state is ProposalState.WITHDRAWING
        assert after.transaction is not None
        assert (after.transaction.state, after.transaction.threshold) == (SafeTransactionState.QUEUED, 2)
        assert rows.is_due(database, Proposal, proposal_id)

    def test_when_it_was_approved_meanwhile_it_stays_so(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace)
        rows.approval(database, proposal_id, 4)
        request_id = member(database, workspace, proposal_id, State.EXECUTED)
        lease, before = rows.lease(database, Proposal, proposal_id), snapshot(database, proposal_id)
        allowed = Advance(State.REGISTERED, EVIDENCE, allowed_at=105)
        transitions.apply(database, rows.lease(database, ChangeRequest, request_id), State.EXECUTED, allowed, rows.NOW)
        seen = ProposalOutcome(
            ProposalState.QUEUED, 30, transaction_state=SafeTransactionState.EXECUTED, transaction_hash="0x" + "aa" * 32
        )
        proposals.apply(database, lease, before, seen)
        after = snapshot(database, proposal_id)
        assert (after.state, after.approved_at_block) == (ProposalState.APPROVED, 105)
        assert after.transaction is not None
        assert (after.transaction.state, after.transaction.transaction_hash) == ("executed", "0x" + "aa" * 32)
        assert rows.is_due(database, Proposal, proposal_id), "to see whether anything is left in the owners' queue"

    @pytest.mark.parametrize("state", [ProposalState.WITHDRAWING, ProposalState.WITHDRAWN])
    def test_one_that_somebody_joined_meanwhile_is_not_given_up(
        self, database: Database, workspace: str, state: ProposalState
    ):
        """The step found it deserted; since then a request joined."""
        proposal_id = rows.proposal(database, workspace)
        lease, before = rows.lease(database, Proposal, proposal_id), snapshot(database, proposal_id)
        assert before.members == ()
        joined = join(database, rows.change_request(database, workspace, State.PREPARED))
        assert joined.id == proposal_id
        wait = 0.0 if state is ProposalState.WITHDRAWING else None
        proposals.apply(database, lease, before, ProposalOutcome(state, wait))
        after = snapshot(database, proposal_id)
        assert (after.state, after.members) == (ProposalState.QUEUED, joined.members)
        assert rows.is_due(database, Proposal, proposal_id)

    def test_what_is_over_stays_over(self, database: Database, workspace: str):
        """A late answer about a transaction whose nonce went to another one meanwhile."""
        over = rows.proposal(database, workspace, ProposalState.APPROVED)
        rows.approval(database, over, 4, SafeTransactionState.REPLACED)
        rows.approval(database, rows.proposal(database, workspace, compose_hash=rows.OTHER_HASH), 4)
        rows.shift(database, Proposal, over, lease_until=10)
        before = snapshot(database, over)
        row = rows.read(database, Proposal, over)
        lease = proposals.Lease(Proposal, over, row.fence, rows.NOW)
        late = ProposalOutcome(ProposalState.QUEUED, 30, transaction_state=SafeTransactionState.QUEUED)
        proposals.apply(database, lease, before, late)
        assert [each.state for each in rows.transactions(database, over)] == ["replaced"]
