"""Who may serve a row: one at a time, by the database's clock, behind a fence."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from service.domain.chain import Block, ChainView, Cursor, Observation
from service.domain.errors import LeaseLost
from service.domain.outcomes import Advance, Facts, ProposalOutcome, Wait
from service.domain.reasons import Reason
from service.domain.snapshots import ProposalState
from service.domain.states import State
from service.store import leases, observations, proposals, snapshots, transitions
from service.store.database import Database
from service.store.leases import Lease, LeaseKeeper
from service.store.proposals import StoredProposalIntents, StoredRequestIntents
from service.store.tables import ChainCursor, ChangeRequest, Proposal
from tests.support import rows
from tests.support.threads import holding, in_background, together, wait_until, wait_until_blocked


@pytest.fixture
def request_id(database: Database, workspace: str) -> str:
    return rows.change_request(database, workspace)


def _wait(database: Database, lease: Lease, seconds: float = 60.0) -> None:
    outcome = Wait(seconds, Reason.WAITING_FOR_OWNERS)
    transitions.apply(database, lease, State.RECEIVED, outcome, rows.NOW)


@pytest.mark.fault(
    "workers", "Many workers are woken for one row", "one takes it, the others find nothing to do", "no delay"
)
def test_of_twenty_workers_one_gets_the_row(database: Database, request_id: str):
    taken = together([lambda: leases.acquire(database, ChangeRequest, request_id)] * 20)
    assert len([lease for lease in taken if lease is not None]) == 1


def test_a_held_row_is_not_taken_until_its_lease_is_over(database: Database, request_id: str):
    first = rows.lease(database, ChangeRequest, request_id)
    assert leases.acquire(database, ChangeRequest, request_id) is None
    rows.shift(database, ChangeRequest, request_id, lease_until=5)
    assert leases.acquire(database, ChangeRequest, request_id) is None
    rows.shift(database, ChangeRequest, request_id, lease_until=-0.001)
    second = rows.lease(database, ChangeRequest, request_id)
    assert second.fence == first.fence + 1


def clock(database: Database) -> datetime:
    with database.transaction() as session:
        return session.scalars(select(func.clock_timestamp())).one()


def test_a_lease_lasts_fifteen_seconds(database: Database, request_id: str):
    began = clock(database)
    rows.lease(database, ChangeRequest, request_id)
    ended = clock(database)
    lasts = timedelta(seconds=15)
    assert began + lasts <= rows.read(database, ChangeRequest, request_id).lease_until <= ended + lasts


def test_a_row_that_is_not_due_is_not_taken(database: Database, request_id: str):
    rows.shift(database, ChangeRequest, request_id, due_at=1)
    assert leases.acquire(database, ChangeRequest, request_id) is None
    assert leases.acquire(database, ChangeRequest, "cr_unknown") is None


def test_a_row_that_ended_is_not_taken(database: Database, workspace: str):
    ended = rows.change_request(database, workspace, State.CANCELLED)
    assert leases.acquire(database, ChangeRequest, ended) is None


def test_a_lease_that_waited_for_another_writer_still_lasts_its_fifteen_seconds(database: Database, request_id: str):
    taking = in_background(lambda: leases.acquire(database, ChangeRequest, request_id))
    with (
        holding(database, "UPDATE change_requests SET title = 'new' WHERE id = :id", id=request_id) as blocker,
        taking as taken,
    ):
        wait_until_blocked(database, 1)
        began = blocker.scalar(select(func.clock_timestamp()))
        blocker.commit()
    assert taken.result() is not None
    row = rows.read(database, ChangeRequest, request_id)
    assert (row.lease_until - began).total_seconds() >= 15


def test_a_doorbell_that_rings_while_a_worker_waits_for_the_row_is_heard(database: Database, request_id: str):
    taking = in_background(lambda: leases.acquire(database, ChangeRequest, request_id))
    with (
        holding(database, "UPDATE change_requests SET title = 'new' WHERE id = :id", id=request_id) as bell,
        taking as taken,
    ):
        wait_until_blocked(database, 1)
        bell.execute(update(ChangeRequest).values(due_at=func.clock_timestamp(), rung_at=None))
        bell.commit()
    assert taken.result() is not None


class TestFence:
    """A holder whose row was taken over writes nothing any more."""

    @pytest.fixture
    def stale(self, database: Database, request_id: str) -> Lease:
        stale = rows.lease(database, ChangeRequest, request_id)
        rows.shift(database, ChangeRequest, request_id, lease_until=-1)
        rows.lease(database, ChangeRequest, request_id)
        return stale

    @pytest.mark.fault(
        "workers",
        "A worker freezes past its lease, wakes and is about to call",
        "its intent is refused, and the call is not made",
        "no delay",
    )
    def test_it_cannot_record(self, database: Database, stale: Lease):
        with pytest.raises(LeaseLost):
            transitions.record(database, stale, Facts(cvm_name="late"))
        assert rows.read(database, ChangeRequest, str(stale.row_id)).cvm_name is None

    @pytest.mark.fault(
        "workers",
        "A worker freezes past its lease, wakes and writes",
        "the fence refuses what it writes: the row has another holder",
        "no delay",
    )
    @pytest.mark.parametrize("outcome", [Wait(0, Reason.PHALA_BUSY), Advance(State.CANCELLED)])
    def test_it_cannot_apply(self, database: Database, stale: Lease, outcome: Wait | Advance):
        with pytest.raises(LeaseLost):
            transitions.apply(database, stale, State.RECEIVED, outcome, rows.NOW)
        row = rows.read(database, ChangeRequest, str(stale.row_id))
        assert (row.state, row.reason, row.lease_until is None) == ("received", None, False)
        assert rows.events(database, row.id) == []

    def test_it_cannot_join_a_proposal(self, database: Database, stale: Lease):
        with pytest.raises(LeaseLost):
            StoredRequestIntents(database, stale).join_proposal((), rows.SAFE)
        with database.transaction() as session:
            assert session.scalars(select(Proposal)).all() == []

    def test_its_keeper_renews_nothing(self, database: Database, stale: Lease):
        rows.shift(database, ChangeRequest, stale.row_id, lease_until=1)
        before = rows.read(database, ChangeRequest, str(stale.row_id)).lease_until
        LeaseKeeper(database)._renew(stale)
        assert rows.read(database, ChangeRequest, str(stale.row_id)).lease_until == before

    def test_nor_for_a_proposal(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace, ProposalState.POSTING)
        with database.transaction() as session:
            before = snapshots.proposal(session, proposal_id)
        stale = rows.lease(database, Proposal, proposal_id)
        rows.shift(database, Proposal, proposal_id, lease_until=-1)
        rows.lease(database, Proposal, proposal_id)
        intents = StoredProposalIntents(database, stale)
        with pytest.raises(LeaseLost):
            intents.claim_nonce(0)
        with pytest.raises(LeaseLost):
            intents.intend_rejection(0)
        with pytest.raises(LeaseLost):
            proposals.apply(database, stale, before, ProposalOutcome(ProposalState.QUEUED, 5))
        assert rows.transactions(database, proposal_id) == []
        row = rows.read(database, Proposal, proposal_id)
        assert (row.state, row.lease_until is None) == ("posting", False)

    def test_nor_for_a_chain(self, database: Database):
        observations.ensure_chains(database, [1])
        stale = rows.lease(database, ChainCursor, 1)
        rows.shift(database, ChainCursor, 1, lease_until=-1)
        rows.lease(database, ChainCursor, 1)
        block = Block(1, "0x01")
        seen = Observation(ChainView(block, block), Cursor(block), (rows.fact(1),), (), 0)
        with pytest.raises(LeaseLost):
            observations.apply(database, stale, seen, interval_seconds=5, now=rows.NOW)
        with pytest.raises(LeaseLost):
            observations.fail(database, stale, detail="late", wait_seconds=5)
        assert rows.read(database, ChainCursor, 1).block_number is None

    def test_a_lease_that_was_given_back_writes_nothing_either(self, database: Database, request_id: str):
        lease = rows.lease(database, ChangeRequest, request_id)
        _wait(database, lease)
        with pytest.raises(LeaseLost):
            transitions.record(database, lease, Facts(cvm_name="late"))
        with pytest.raises(LeaseLost):
            _wait(database, lease, seconds=1)
        assert (rows.due_in(database, ChangeRequest, request_id) or 0) > 50


class TestDoorbell:
    """Whatever rings while a row is held makes it due at once when it is given back."""

    def test_without_one_the_row_waits(self, database: Database, request_id: str):
        _wait(database, rows.lease(database, ChangeRequest, request_id))
        assert 55 < (rows.due_in(database, ChangeRequest, request_id) or 0) <= 60

    @pytest.mark.fault(
        "workers",
        "Something happens while a worker serves the row",
        "the row is due again right after",
        "the end of that step",
    )
    def test_one_during_the_lease_is_not_lost(self, database: Database, request_id: str):
        lease = rows.lease(database, ChangeRequest, request_id)
        rows.shift(database, ChangeRequest, request_id, due_at=0)
        _wait(database, lease)
        assert (rows.due_in(database, ChangeRequest, request_id) or 0) <= 0
        assert rows.is_due(database, ChangeRequest, request_id)

    def test_one_whose_transaction_ends_after_apply_began_is_not_lost(self, database: Database, request_id: str):
        lease = rows.lease(database, ChangeRequest, request_id)
        ring = "UPDATE change_requests SET due_at = clock_timestamp(), rung_at = NULL WHERE id = :id"
        with holding(database, ring, id=request_id) as bell, in_background(lambda: _wait(database, lease)) as applied:
            wait_until_blocked(database, 1)
            bell.commit()
            applied.result()
        assert (rows.due_in(database, ChangeRequest, request_id) or 0) <= 0

    def test_one_that_waits_for_apply_rings_afterwards(self, database: Database, request_id: str):
        lease = rows.lease(database, ChangeRequest, request_id)
        observations.ensure_chains(database, [rows.CHAIN_ID])
        with database.transaction() as session:
            session.execute(
                update(ChangeRequest).values(chain_id=rows.CHAIN_ID, app_contract=rows.APP, due_at=lease.due_at)
            )
        _wait(database, lease)
        rows.shift(database, ChangeRequest, request_id, due_at=0)
        assert rows.is_due(database, ChangeRequest, request_id)

    def test_it_counts_when_the_lease_was_taken_over(self, database: Database, request_id: str):
        rows.lease(database, ChangeRequest, request_id)
        rows.shift(database, ChangeRequest, request_id, due_at=0, lease_until=-1)
        second = rows.lease(database, ChangeRequest, request_id)
        _wait(database, second)
        assert (rows.due_in(database, ChangeRequest, request_id) or 0) > 50, "the second look came after the ring"


class TestRinging:
    """The sweep rings once for each due row, and again when nobody came."""

    def test_it_stamps_what_it_rings_for(self, database: Database, request_id: str):
        assert leases.ring_due(database, ChangeRequest, 10) == [(request_id, "received")]
        assert rows.read(database, ChangeRequest, request_id).rung_at is not None
        assert leases.ring_due(database, ChangeRequest, 10) == []

    @pytest.mark.fault("broker", "A message is lost", "the sweep rings again for the same row", "10 s")
    def test_it_rings_again_when_the_ring_was_lost(self, database: Database, request_id: str):
        assert rows.is_due(database, ChangeRequest, request_id)
        rows.shift(database, ChangeRequest, request_id, rung_at=-9)
        assert not rows.is_due(database, ChangeRequest, request_id)
        rows.shift(database, ChangeRequest, request_id, rung_at=-11)
        assert rows.is_due(database, ChangeRequest, request_id)

    @pytest.mark.fault(
        "workers",
        "A worker dies and says nothing",
        "its row is rung for when its lease is over",
        "15 s, and 1 s of sweep",
    )
    def test_it_leaves_held_rows_alone_and_rings_when_the_holder_died(self, database: Database, request_id: str):
        rows.lease(database, ChangeRequest, request_id)
        assert not rows.is_due(database, ChangeRequest, request_id)
        rows.shift(database, ChangeRequest, request_id, lease_until=-1)
        assert rows.is_due(database, ChangeRequest, request_id)

    def test_taking_a_row_clears_the_stamp(self, database: Database, request_id: str):
        assert rows.is_due(database, ChangeRequest, request_id)
        _wait(database, rows.lease(database, ChangeRequest, request_id), seconds=0)
        assert rows.is_due(database, ChangeRequest, request_id), "due at once means rung at once"

    def test_a_ring_for_a_lease_that_ran_out_does_not_delay_the_next_step(self, database: Database, request_id: str):
        lease = rows.lease(database, ChangeRequest, request_id)
        rows.shift(database, ChangeRequest, request_id, lease_until=-1)
        assert rows.is_due(database, ChangeRequest, request_id)
        transitions.apply(database, lease, State.RECEIVED, Wait(0, Reason.PHALA_BUSY), rows.NOW)
        assert rows.is_due(database, ChangeRequest, request_id)

    def test_two_sweeps_at_once_ring_once_for_each_row(self, database: Database, workspace: str):
        expected = {rows.change_request(database, workspace) for _ in range(40)}
        rung = together([lambda: leases.ring_due(database, ChangeRequest, 15)] * 4)
        ids = [row_id for found in rung for row_id, _ in found]
        assert len(ids) == len(set(ids))
        rest = [row_id for row_id, _ in leases.ring_due(database, ChangeRequest, 100)]
        assert sorted(ids + rest) == sorted(expected)

    def test_a_locked_row_does_not_hold_up_the_others(self, database: Database, workspace: str, request_id: str):
        other = rows.change_request(database, workspace)
        with holding(database, "SELECT id FROM change_requests WHERE id = :id FOR UPDATE", id=request_id):
            assert leases.ring_due(database, ChangeRequest, 10) == [(other, "received")]
        assert leases.ring_due(database, ChangeRequest, 10) == [(request_id, "received")]

    def test_the_longest_due_come_first(self, database: Database, workspace: str, request_id: str):
        older = rows.change_request(database, workspace)
        rows.shift(database, ChangeRequest, older, due_at=-100)
        assert leases.ring_due(database, ChangeRequest, 1) == [(older, "received")]
        assert leases.ring_due(database, ChangeRequest, 1) == [(request_id, "received")]

    def test_a_backlog_of_one_chain_does_not_hold_up_another(self, database: Database, workspace: str):
        backlog = [rows.change_request(database, workspace, State.PROPOSED) for _ in range(5)]
        for age, row_id in enumerate(backlog):
            rows.shift(database, ChangeRequest, row_id, due_at=age - 100)
        other = rows.change_request(database, workspace, State.PROPOSED, chain_id=1)
        assert leases.ring_due(database, ChangeRequest, 2) == [(backlog[0], "proposed"), (other, "proposed")]

    def test_every_kind_of_row_tells_its_state(self, database: Database, workspace: str):
        observations.ensure_chains(database, [1])
        proposal_id = rows.proposal(database, workspace, ProposalState.WITHDRAWING)
        assert leases.ring_due(database, ChainCursor, 10) == [(1, "")]
        assert leases.ring_due(database, Proposal, 10) == [(proposal_id, "withdrawing")]


class TestKeeper:
    """A call may last longer than a lease."""

    def test_it_renews_what_it_was_given_until_that_is_dropped(self, database: Database, workspace: str):
        kept, other = rows.change_request(database, workspace), rows.change_request(database, workspace)
        leases_of = {row_id: rows.lease(database, ChangeRequest, row_id) for row_id in (kept, other)}
        before = rows.read(database, ChangeRequest, kept).lease_until
        untouched = rows.read(database, ChangeRequest, other).lease_until

        def until() -> object:
            return rows.read(database, ChangeRequest, kept).lease_until

        with LeaseKeeper(database, every_seconds=0.02) as keeper:
            keeper.add(leases_of[kept])
            wait_until(lambda: until() > before, "the lease is renewed")
            again = until()
            wait_until(lambda: until() > again, "it is renewed again")
            keeper.drop(leases_of[kept])
        assert rows.read(database, ChangeRequest, other).lease_until == untouched

    def test_it_does_not_bring_back_a_lease_that_was_given_back(self, database: Database, request_id: str):
        lease = rows.lease(database, ChangeRequest, request_id)
        _wait(database, lease, seconds=0)
        LeaseKeeper(database)._renew(lease)
        assert rows.read(database, ChangeRequest, request_id).lease_until is None

    @pytest.mark.fault(
        "workers", "A lease cannot be renewed", "others are renewed all the same; it is tried again", "5 s"
    )
    def test_one_renewal_that_fails_does_not_end_the_others(self, database: Database, workspace: str):
        row_id = rows.change_request(database, workspace)
        lease = rows.lease(database, ChangeRequest, row_id)
        broken = Lease(ChangeRequest, row_id, 2**70, lease.due_at)  # out of range: the database refuses the statement
        before = rows.read(database, ChangeRequest, row_id).lease_until
        with LeaseKeeper(database, every_seconds=0.02) as keeper:
            keeper.add(broken)
            keeper.add(lease)
            wait_until(
                lambda: rows.read(database, ChangeRequest, row_id).lease_until > before, "the good one is renewed"
            )
