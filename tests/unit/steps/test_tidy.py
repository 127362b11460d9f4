"""What is left in the owners' queue when the approval came by another route."""

from datetime import timedelta
from functools import partial

import pytest

from service.domain.calls import approval_call
from service.domain.chain import FactKind
from service.domain.errors import Nonsense
from service.domain.outcomes import ProposalOutcome
from service.domain.reasons import Reason
from service.domain.snapshots import Proposal, ProposalState, SafeTransactionState
from service.steps.tidy import tidy
from tests.support.builders import APP, COMPOSE_HASH, OTHER_HASH, proposal, safe_transaction
from tests.support.fake_chain import FakeChain
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner, FixedClock

OURS = safe_transaction(state=SafeTransactionState.QUEUED, scan_from=1)
DONE = ProposalOutcome(ProposalState.APPROVED, None, transaction_state=SafeTransactionState.DELETED)
Run = partial[ProposalOutcome]


@pytest.fixture
def run(chain: FakeChain, queue: FakeSafeQueue, clock: FixedClock) -> Run:
    queue.add(OURS)
    chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH), empty=chain.depth)
    return partial(tidy, chain=chain, queue=queue, clock=clock)


def approved(**overrides: object) -> Proposal:
    return proposal(ProposalState.APPROVED, **{"transaction": OURS, "members": (), **overrides})


def test_the_highest_without_confirmations_is_deleted(run: Run, queue: FakeSafeQueue) -> None:
    assert run(approved()) == DONE
    assert queue.rows == {}


def test_one_that_is_not_there_needs_nothing(run: Run, queue: FakeSafeQueue) -> None:
    queue.rows.clear()

    assert run(approved()) == DONE
    assert "delete" not in queue.calls


def test_a_deletion_whose_answer_is_lost_is_found_done(run: Run, queue: FakeSafeQueue) -> None:
    queue.fail("delete", Nonsense("cut off", reason=Reason.SAFE_SERVICE_UNREACHABLE), after_effect=True)
    with pytest.raises(Nonsense):
        run(approved())

    assert run(approved()) == DONE


class TestWhatStays:
    @pytest.fixture(params=["signed", "below another"])
    def stays(self, run: Run, queue: FakeSafeQueue, request: pytest.FixtureRequest) -> Run:
        if request.param == "signed":
            owner = FakeSigner(11)
            queue.confirm(OURS.safe_tx_hash, owner.address, owner.sign(OURS.safe_tx_hash))
        else:
            queue.add(safe_transaction(nonce=1, call=approval_call(APP, OTHER_HASH, ())))
        return run

    def test_it_says_what_owners_may_do(self, stays: Run, clock: FixedClock) -> None:
        outcome = stays(approved())

        assert (outcome.state, outcome.transaction_state) == (ProposalState.APPROVED, None)
        assert "the owners reject or execute it" in (outcome.detail or "")
        assert outcome.queue_due_at == clock.now() + timedelta(days=7)

    def test_the_queue_is_left_in_peace_until_the_nonce_is_used(
        self, stays: Run, chain: FakeChain, queue: FakeSafeQueue
    ) -> None:
        told = stays(approved())
        queue.calls.clear()
        waiting = approved(queue_due_at=told.queue_due_at, detail=told.detail)
        assert stays(waiting).detail == told.detail
        execution = chain.execute(OURS.safe_tx_hash, 0)
        assert stays(waiting).detail == "its nonce is used, not final yet"
        chain.mine(empty=chain.depth)

        assert stays(waiting) == ProposalOutcome(
            ProposalState.APPROVED,
            None,
            transaction_state=SafeTransactionState.EXECUTED,
            transaction_hash=execution.transaction_hash,
        )
        assert queue.calls == []


def test_a_nonce_used_by_another_needs_nothing(run: Run, chain: FakeChain) -> None:
    chain.execute(OTHER_HASH, 0, final=True)

    assert run(approved()).transaction_state is SafeTransactionState.REPLACED


def test_a_nonce_used_by_nobody_knows_what_is_asked_for_again(run: Run, chain: FakeChain) -> None:
    chain.mine(nonce=1, empty=chain.depth)

    outcome = run(approved())

    assert (outcome.wait_seconds, outcome.transaction_state) == (6 * 3600, None)


@pytest.mark.parametrize("transaction", [None, safe_transaction(state=SafeTransactionState.EXECUTED)])
def test_without_a_live_transaction_there_is_nothing_to_do(run: Run, queue: FakeSafeQueue, transaction: object) -> None:
    assert run(approved(transaction=transaction)) == ProposalOutcome(ProposalState.APPROVED, None)
    assert queue.calls == []


def test_a_forged_transaction_is_left_alone(run: Run, queue: FakeSafeQueue) -> None:
    forged = safe_transaction(call=approval_call(APP, OTHER_HASH, ()))

    outcome = run(approved(transaction=forged))

    assert (outcome.state, outcome.wait_seconds) == (ProposalState.APPROVED, None)
    assert queue.calls == []
