"""One approval for all who need the same: joining, leaving, nonces, and what a proposal's step brings back."""

import pytest
from sqlalchemy import select

from service.domain.calls import approval_call, rejection_call, safe_tx_hash
from service.domain.errors import LeaseLost
from service.domain.outcomes import Advance, Facts, ProposalOutcome
from service.domain.reasons import Reason
from service.domain.snapshots import Proposal as Snapshot
from service.domain.snapshots import ProposalState, SafeTransactionKind, SafeTransactionState
from service.domain.states import State
from service.store import proposals, snapshots, transitions
from service.store.database import Database
from service.store.proposals import StoredProposalIntents, StoredRequestIntents
from service.store.tables import ChangeRequest, Proposal
from tests.support import rows
from tests.support.threads import together

EVIDENCE = Facts(transaction_hash="0x" + "aa" * 32, evidence_block_hash="0x" + "b1" * 32, evidence_block_number=100)


def _join(database: Database, request_id: str, devices: tuple[str, ...] = (), safe: str | None = rows.SAFE) -> Snapshot:
    lease = rows.lease(database, ChangeRequest, request_id)
    joined = StoredRequestIntents(database, lease).join_proposal(devices, safe)
    rows.shift(database, ChangeRequest, request_id, lease_until=None)
    return joined


def _member(database: Database, workspace: str, proposal_id: str, state: State = State.PROPOSED) -> str:
    return rows.change_request(database, workspace, state, proposal_id=proposal_id)


def _move(database: Database, request_id: str, source: State, target: State, facts: Facts | None = None) -> None:
    reason = Reason.INTERNAL_ERROR if target is State.FAILED else None
    outcome = Advance(target, facts or Facts(), reason=reason)
    transitions.apply(database, rows.lease(database, ChangeRequest, request_id), source, outcome, rows.NOW)


def _snapshot(database: Database, proposal_id: str) -> Snapshot:
    with database.transaction() as session:
        return snapshots.proposal(session, proposal_id)


def _all(database: Database) -> list[Proposal]:
    with database.transaction() as session:
        return list(session.scalars(select(Proposal)))


class TestJoining:
    def test_the_first_makes_a_proposal_that_is_due(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.PREPARED)
        joined = _join(database, request_id)
        assert (joined.state, joined.safe, joined.members) == (ProposalState.POSTING, rows.SAFE, (request_id,))
        assert (joined.app_contract, joined.compose_hash) == (rows.APP, rows.COMPOSE_HASH)
        assert rows.is_due(database, Proposal, joined.id)

    def test_ten_at_once_share_one(self, database: Database, workspace: str):
        request_ids = [rows.change_request(database, workspace, State.PREPARED) for _ in range(10)]
        joined = together([lambda each=each: _join(database, each) for each in request_ids])
        assert len({proposal.id for proposal in joined}) == 1
        assert len(_all(database)) == 1
        assert set(_snapshot(database, joined[0].id).members) == set(request_ids)

    def test_other_devices_need_another(self, database: Database, workspace: str):
        first, second = (rows.change_request(database, workspace, State.PREPARED) for _ in range(2))
        assert _join(database, first, ()).id != _join(database, second, (rows.DEVICE,)).id

    def test_the_order_of_devices_does_not_matter(self, database: Database, workspace: str):
        first, second = (rows.change_request(database, workspace, State.PREPARED) for _ in range(2))
        both = _join(database, first, (rows.DEVICE, rows.OTHER_DEVICE))
        assert _join(database, second, (rows.OTHER_DEVICE, rows.DEVICE)).id == both.id
        assert both.devices == tuple(sorted((rows.DEVICE, rows.OTHER_DEVICE)))

    @pytest.mark.parametrize(
        "columns", [{"compose_hash": rows.OTHER_HASH}, {"app_contract": rows.OTHER_APP}, {"chain_id": 1}]
    )
    def test_another_identity_needs_another(self, database: Database, workspace: str, columns: dict[str, object]):
        first = rows.change_request(database, workspace, State.PREPARED)
        second = rows.change_request(database, workspace, State.PREPARED, **columns)
        assert _join(database, first).id != _join(database, second).id

    def test_workspaces_do_not_share(self, database: Database, workspace: str):
        mine = rows.change_request(database, workspace, State.PREPARED)
        theirs = rows.change_request(database, rows.workspace(database, "other"), State.PREPARED)
        joined = together([lambda: _join(database, mine), lambda: _join(database, theirs)])
        assert [proposal.members for proposal in joined] == [(mine,), (theirs,)]

    def test_one_that_is_being_withdrawn_takes_nobody(self, database: Database, workspace: str):
        withdrawing = rows.proposal(database, workspace, ProposalState.WITHDRAWING)
        request_id = rows.change_request(database, workspace, State.PREPARED)
        assert _join(database, request_id).id == withdrawing
        assert rows.read(database, ChangeRequest, request_id).proposal_id is None
        assert _snapshot(database, withdrawing).members == ()

    @pytest.mark.parametrize(
        "state", [ProposalState.APPROVED, ProposalState.WITHDRAWN, ProposalState.REJECTED, ProposalState.FAILED]
    )
    def test_after_one_ended_the_next_makes_a_new_one(self, database: Database, workspace: str, state: ProposalState):
        ended = rows.proposal(database, workspace, state)
        joined = _join(database, rows.change_request(database, workspace, State.PREPARED))
        assert joined.id != ended
        assert joined.state is ProposalState.POSTING

    def test_an_external_approval_has_no_safe_and_is_not_served(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.PREPARED)
        joined = _join(database, request_id, safe=None)
        assert (joined.state, joined.safe) == (ProposalState.EXTERNAL, None)
        assert rows.read(database, Proposal, joined.id).due_at is None

    def test_again_changes_nothing(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.PREPARED)
        assert _join(database, request_id) == _join(database, request_id)


class TestLeaving:
    def test_the_last_one_has_it_withdrawn_at_once(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace)
        rows.shift(database, Proposal, proposal_id, due_at=600, rung_at=0)
        request_id = _member(database, workspace, proposal_id)
        _move(database, request_id, State.PROPOSED, State.CANCELLED)
        assert rows.read(database, Proposal, proposal_id).state == "withdrawing"
        assert rows.is_due(database, Proposal, proposal_id)

    def test_one_of_ten_leaves_it_to_the_nine(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace)
        request_ids = [_member(database, workspace, proposal_id) for _ in range(10)]
        _move(database, request_ids[0], State.PROPOSED, State.CANCELLED)
        left = _snapshot(database, proposal_id)
        assert (left.state, left.members) == (ProposalState.QUEUED, tuple(sorted(request_ids[1:])))

    def test_of_ten_that_leave_at_once_one_is_the_last(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace)
        request_ids = [_member(database, workspace, proposal_id) for _ in range(10)]
        together([lambda each=each: _move(database, each, State.PROPOSED, State.CANCELLED) for each in request_ids])
        assert _snapshot(database, proposal_id).state is ProposalState.WITHDRAWING

    @pytest.mark.parametrize("target", [State.EXPIRED, State.SUPERSEDED, State.FAILED])
    def test_however_it_leaves(self, database: Database, workspace: str, target: State):
        proposal_id = rows.proposal(database, workspace, ProposalState.POSTING)
        _move(database, _member(database, workspace, proposal_id, State.PREPARED), State.PREPARED, target)
        assert _snapshot(database, proposal_id).state is ProposalState.WITHDRAWING

    def test_an_external_one_just_ends(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace, ProposalState.EXTERNAL)
        _move(database, _member(database, workspace, proposal_id), State.PROPOSED, State.CANCELLED)
        assert _snapshot(database, proposal_id).state is ProposalState.WITHDRAWN

    def test_one_that_ended_stays_as_it_is(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace, ProposalState.REJECTED)
        _move(database, _member(database, workspace, proposal_id), State.PROPOSED, State.REJECTED)
        assert _snapshot(database, proposal_id).state is ProposalState.REJECTED

    def test_who_moves_to_another_one_leaves_the_first(self, database: Database, workspace: str):
        """After a reorg the device may need an approval that it had before."""
        first = rows.proposal(database, workspace)
        request_id = _member(database, workspace, first, State.PREPARED)
        second = _join(database, request_id, (rows.DEVICE,))
        assert second.members == (request_id,)
        assert _snapshot(database, first).state is ProposalState.WITHDRAWING

    def test_and_leaves_it_to_those_who_stay(self, database: Database, workspace: str):
        first = rows.proposal(database, workspace)
        staying = _member(database, workspace, first)
        _join(database, _member(database, workspace, first, State.PREPARED), (rows.DEVICE,))
        left = _snapshot(database, first)
        assert (left.state, left.members) == (ProposalState.QUEUED, (staying,))

    def test_two_that_change_places_do_not_block_each_other(self, database: Database, workspace: str):
        plain = rows.proposal(database, workspace)
        with_device = rows.proposal(database, workspace, devices=[rows.DEVICE])
        to_device = [_member(database, workspace, plain, State.PREPARED) for _ in range(5)]
        to_plain = [_member(database, workspace, with_device, State.PREPARED) for _ in range(5)]
        together(
            [lambda each=each: _join(database, each, (rows.DEVICE,)) for each in to_device]
            + [lambda each=each: _join(database, each, ()) for each in to_plain]
        )
        for proposal in _all(database):
            members = _snapshot(database, proposal.id).members
            assert bool(members) == (proposal.state in ("queued", "posting"))


class TestApproved:
    def test_a_final_approval_ends_it(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace)
        first, second = (_member(database, workspace, proposal_id, State.EXECUTED) for _ in range(2))
        _move(database, first, State.EXECUTED, State.REGISTERED, EVIDENCE)
        row = rows.read(database, Proposal, proposal_id)
        assert (row.state, row.due_at) == ("approved", None)
        _move(database, second, State.EXECUTED, State.REGISTERED, EVIDENCE)
        assert _snapshot(database, proposal_id).state is ProposalState.APPROVED

    def test_the_next_request_of_that_identity_makes_a_new_one(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace)
        _move(
            database,
            _member(database, workspace, proposal_id, State.EXECUTED),
            State.EXECUTED,
            State.REGISTERED,
            EVIDENCE,
        )
        assert _join(database, rows.change_request(database, workspace, State.PREPARED)).id != proposal_id

    def test_ten_that_register_at_once_end_it_once(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace)
        request_ids = [_member(database, workspace, proposal_id, State.EXECUTED) for _ in range(10)]
        together(
            [
                lambda each=each: _move(database, each, State.EXECUTED, State.REGISTERED, EVIDENCE)
                for each in request_ids
            ]
        )
        assert _snapshot(database, proposal_id).state is ProposalState.APPROVED


class TestNonces:
    def _posting(self, database: Database, workspace: str, **columns: object) -> StoredProposalIntents:
        number = len(_all(database)) + 1
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
        assert _snapshot(database, proposal_id).transaction == claimed

    def test_many_at_once_get_one_each_without_a_hole(self, database: Database, workspace: str):
        spaces = [workspace, rows.workspace(database, "other")]
        intents = [self._posting(database, spaces[number % 2]) for number in range(10)]
        claimed = together([lambda each=each: each.claim_nonce(5).nonce for each in intents])
        assert sorted(claimed) == list(range(5, 15))

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
        member = _member(database, workspace, proposal_id, State.PREPARED)
        intents = StoredProposalIntents(database, rows.lease(database, Proposal, proposal_id))
        _move(database, member, State.PREPARED, State.CANCELLED)
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

    def test_the_newest_is_the_one_claimed_last_whatever_the_clocks_say(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace, ProposalState.POSTING)
        rows.approval(database, proposal_id, 4, SafeTransactionState.REPLACED, id="stx_from_a_fast_clock")
        claimed = StoredProposalIntents(database, rows.lease(database, Proposal, proposal_id)).claim_nonce(5)
        assert claimed.id < "stx_from_a_fast_clock"
        assert _snapshot(database, proposal_id).transaction == claimed


class TestApply:
    def _queued(self, database: Database, workspace: str, **columns: object) -> tuple[str, Snapshot]:
        proposal_id = rows.proposal(database, workspace, **columns)
        rows.approval(database, proposal_id, 4)
        _member(database, workspace, proposal_id)
        return proposal_id, _snapshot(database, proposal_id)

    def _apply(self, database: Database, before: Snapshot, outcome: ProposalOutcome) -> None:
        proposals.apply(database, rows.lease(database, Proposal, before.id), before, outcome)

    def test_it_stores_what_the_step_saw(self, database: Database, workspace: str):
        proposal_id, before = self._queued(database, workspace)
        owners = ("0x" + "11" * 20, "0x" + "22" * 20)
        outcome = ProposalOutcome(ProposalState.QUEUED, 30, "2 of 3", confirmations=owners, threshold=3)
        self._apply(database, before, outcome)
        after = _snapshot(database, proposal_id)
        assert after.transaction is not None
        assert (after.transaction.confirmations, after.transaction.threshold, after.detail) == (owners, 3, "2 of 3")
        assert 25 < (rows.due_in(database, Proposal, proposal_id) or 0) <= 30
        assert rows.read(database, Proposal, proposal_id).lease_until is None

    @pytest.mark.parametrize(
        ("outcome", "rings"),
        [
            (ProposalOutcome(ProposalState.QUEUED, 30), False),
            (ProposalOutcome(ProposalState.QUEUED, 30, "only words"), False),
            (ProposalOutcome(ProposalState.QUEUED, 30, confirmations=(), threshold=3), False),
            (ProposalOutcome(ProposalState.QUEUED, 30, confirmations=("0x" + "11" * 20,)), True),
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
        waiting, other = _member(database, workspace, proposal_id), rows.change_request(database, workspace)
        ended = _member(database, workspace, proposal_id, State.CANCELLED)
        for each in (waiting, other):
            rows.shift(database, ChangeRequest, each, due_at=600)
        self._apply(database, _snapshot(database, proposal_id), outcome)
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

    def test_a_proposal_that_is_served_cannot_be_forgotten(self, database: Database, workspace: str):
        _, before = self._queued(database, workspace)
        with pytest.raises(Exception, match="served_is_due"):
            self._apply(database, before, ProposalOutcome(ProposalState.QUEUED, None))
        assert _snapshot(database, before.id).state is ProposalState.QUEUED

    def test_when_the_last_member_left_meanwhile_only_the_facts_are_stored(self, database: Database, workspace: str):
        """It was posted after all: the withdrawal must know."""
        proposal_id = rows.proposal(database, workspace, ProposalState.POSTING)
        rows.approval(database, proposal_id, 4, SafeTransactionState.INTENDED)
        member = _member(database, workspace, proposal_id, State.PREPARED)
        lease, before = rows.lease(database, Proposal, proposal_id), _snapshot(database, proposal_id)
        _move(database, member, State.PREPARED, State.CANCELLED)
        posted = ProposalOutcome(ProposalState.QUEUED, 30, transaction_state=SafeTransactionState.QUEUED, threshold=2)
        proposals.apply(database, lease, before, posted)
        after = _snapshot(database, proposal_id)
        assert after.state is ProposalState.WITHDRAWING
        assert after.transaction is not None
        assert (after.transaction.state, after.transaction.threshold) == (SafeTransactionState.QUEUED, 2)
        assert rows.is_due(database, Proposal, proposal_id)

    def test_when_it_was_approved_meanwhile_it_stays_so(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace)
        rows.approval(database, proposal_id, 4)
        member = _member(database, workspace, proposal_id, State.EXECUTED)
        lease, before = rows.lease(database, Proposal, proposal_id), _snapshot(database, proposal_id)
        _move(database, member, State.EXECUTED, State.REGISTERED, EVIDENCE)
        seen = ProposalOutcome(
            ProposalState.QUEUED, 30, transaction_state=SafeTransactionState.EXECUTED, transaction_hash="0x" + "aa" * 32
        )
        proposals.apply(database, lease, before, seen)
        after = _snapshot(database, proposal_id)
        assert after.state is ProposalState.APPROVED
        assert after.transaction is not None
        assert (after.transaction.state, after.transaction.transaction_hash) == ("executed", "0x" + "aa" * 32)
        row = rows.read(database, Proposal, proposal_id)
        assert (row.due_at, row.lease_until) == (None, None)

    @pytest.mark.parametrize("state", [ProposalState.WITHDRAWING, ProposalState.WITHDRAWN])
    def test_one_that_somebody_joined_meanwhile_is_not_given_up(
        self, database: Database, workspace: str, state: ProposalState
    ):
        """The step found it deserted; since then a request joined."""
        proposal_id = rows.proposal(database, workspace)
        lease, before = rows.lease(database, Proposal, proposal_id), _snapshot(database, proposal_id)
        assert before.members == ()
        joined = _join(database, rows.change_request(database, workspace, State.PREPARED))
        assert joined.id == proposal_id
        wait = 0.0 if state is ProposalState.WITHDRAWING else None
        proposals.apply(database, lease, before, ProposalOutcome(state, wait))
        after = _snapshot(database, proposal_id)
        assert (after.state, after.members) == (ProposalState.QUEUED, joined.members)
        assert rows.is_due(database, Proposal, proposal_id)

    def test_what_is_over_stays_over(self, database: Database, workspace: str):
        """A late answer about a transaction whose nonce went to another one meanwhile."""
        over = rows.proposal(database, workspace, ProposalState.APPROVED)
        rows.approval(database, over, 4, SafeTransactionState.REPLACED)
        rows.approval(database, rows.proposal(database, workspace, compose_hash=rows.OTHER_HASH), 4)
        rows.shift(database, Proposal, over, lease_until=10)
        before = _snapshot(database, over)
        row = rows.read(database, Proposal, over)
        lease = proposals.Lease(Proposal, over, row.fence, rows.NOW)
        late = ProposalOutcome(ProposalState.QUEUED, 30, transaction_state=SafeTransactionState.QUEUED)
        proposals.apply(database, lease, before, late)
        assert [each.state for each in rows.transactions(database, over)] == ["replaced"]
