"""The nonce of a waiting approval is used: by what, and what then."""

from functools import partial

import pytest

from service.domain.alerts import AlertCode
from service.domain.calls import SafeCall, approval_call, rejection_call
from service.domain.errors import Unreachable
from service.domain.outcomes import ProposalOutcome
from service.domain.reasons import Reason
from service.domain.schedules import SafePace
from service.domain.snapshots import Proposal, ProposalState, SafeTransactionState
from tests.support.builders import APP, NOW, OTHER_HASH, SAFE, proposal, safe_transaction
from tests.support.fake_chain import FakeChain
from tests.support.fake_safe_queue import FakeSafeQueue

OURS = safe_transaction(state=SafeTransactionState.QUEUED, scan_from=1)
REJECTION = safe_transaction(call=rejection_call(SAFE))
OTHER = safe_transaction(call=approval_call(APP, OTHER_HASH, ()))
EXECUTION = "0x" + "ab" * 32
DOWN = Unreachable("down", reason=Reason.SAFE_SERVICE_UNREACHABLE)
Look = partial[ProposalOutcome]


def queued(**overrides: object) -> Proposal:
    return proposal(ProposalState.QUEUED, **{"transaction": OURS, "news_at": NOW, **overrides})


def without_logs() -> Proposal:
    """Nobody knows from which block on to look."""
    return queued(transaction=safe_transaction(state=SafeTransactionState.QUEUED))


def rejected() -> ProposalOutcome:
    detail = "the owners executed a rejection at nonce 0"
    return ProposalOutcome(ProposalState.REJECTED, None, detail, transaction_state=SafeTransactionState.REPLACED)


def test_used_but_not_final(look: Look, chain: FakeChain, queue: FakeSafeQueue) -> None:
    chain.execute(OURS.safe_tx_hash, 0)

    assert look(queued()) == ProposalOutcome(ProposalState.QUEUED, 15.0, "nonce 0 is used, not final yet")
    assert queue.calls == []


class TestByTheChain:
    def test_ours(self, look: Look, chain: FakeChain, queue: FakeSafeQueue) -> None:
        execution = chain.execute(OURS.safe_tx_hash, 0, final=True)

        assert look(queued()) == ProposalOutcome(
            ProposalState.QUEUED,
            0.0,
            transaction_state=SafeTransactionState.EXECUTED,
            transaction_hash=execution.transaction_hash,
        )
        assert queue.calls == []

    def test_ours_whose_call_failed(self, look: Look, chain: FakeChain) -> None:
        execution = chain.execute(OURS.safe_tx_hash, 0, success=False, final=True)

        told = look(queued())

        assert (told.state, told.wait_seconds) == (ProposalState.FAILED, None)
        assert told.transaction_hash == execution.transaction_hash

    def test_a_rejection(self, look: Look, chain: FakeChain, queue: FakeSafeQueue) -> None:
        chain.execute(REJECTION.safe_tx_hash, 0)
        chain.execute(OTHER_HASH, 1, final=True)

        assert look(queued()) == rejected()
        assert queue.calls == []

    def test_another_one_is_found_by_counting_from_the_end(
        self, look: Look, chain: FakeChain, queue: FakeSafeQueue
    ) -> None:
        used, later = "0x" + "11" * 32, "0x" + "22" * 32
        for number, tx_hash in enumerate((used, later)):
            chain.execute(tx_hash, number, final=number == 1)

        told = look(queued())

        assert (told.state, told.transaction_state) == (ProposalState.POSTING, SafeTransactionState.REPLACED)
        assert [alert.code for alert in told.alerts] == [AlertCode.TRANSACTION_REPLACED]
        assert used in told.alerts[0].message
        assert queue.calls == []


class TestByTheQueue:
    @pytest.mark.parametrize("broken", [True, False])
    def test_ours(self, look: Look, chain: FakeChain, queue: FakeSafeQueue, broken: bool) -> None:
        """An empty answer to the question for logs proves nothing, a broken one neither."""
        queue.execute(OURS.safe_tx_hash, EXECUTION)
        chain.mine(nonce=1, empty=chain.depth)
        if broken:
            chain.fail("executions", Unreachable("range too wide", reason=Reason.RPC_UNREACHABLE))

        told = look(queued())

        assert (told.transaction_state, told.transaction_hash) == (SafeTransactionState.EXECUTED, EXECUTION)

    def test_ours_whose_call_failed(self, look: Look, chain: FakeChain, queue: FakeSafeQueue) -> None:
        queue.execute(OURS.safe_tx_hash, EXECUTION, successful=False)
        chain.mine(nonce=1, empty=chain.depth)

        assert look(without_logs()).state is ProposalState.FAILED

    def test_a_rejection(self, look: Look, chain: FakeChain, queue: FakeSafeQueue) -> None:
        queue.add(REJECTION)
        queue.execute(REJECTION.safe_tx_hash, EXECUTION)
        chain.mine(nonce=1, empty=chain.depth)

        assert look(without_logs()) == rejected()

    @pytest.mark.parametrize("call", [approval_call(APP, OTHER_HASH, ()), SafeCall("0x" + "66" * 20, "0x", 0)])
    def test_another(self, look: Look, chain: FakeChain, queue: FakeSafeQueue, call: SafeCall) -> None:
        other = safe_transaction(call=call)
        queue.add(other)
        queue.execute(other.safe_tx_hash, EXECUTION)
        chain.mine(nonce=1, empty=chain.depth)

        told = look(without_logs())

        assert (told.state, told.transaction_state) == (ProposalState.POSTING, SafeTransactionState.REPLACED)

    @pytest.mark.parametrize(("attempts", "wait"), [(2, 5.0), (9, 600.0), (10, 4 * 3600.0)])
    def test_what_nobody_tells_is_asked_for_less_and_less(
        self, look: Look, chain: FakeChain, attempts: int, wait: float
    ) -> None:
        chain.mine(nonce=1, empty=chain.depth)

        told = look(queued(attempts=attempts), pace=SafePace(60.0, 1, 5000))

        assert (told.state, told.wait_seconds, told.failed_attempt) == (ProposalState.QUEUED, wait, True)

    def test_a_fault_is_left_to_the_runner(self, look: Look, chain: FakeChain, queue: FakeSafeQueue) -> None:
        queue.fail("at_nonce", DOWN)
        chain.mine(nonce=1, empty=chain.depth)

        with pytest.raises(Unreachable):
            look(queued())

    def test_what_it_calls_executed_is_not_while_the_nonce_is_unused(self, look: Look, queue: FakeSafeQueue) -> None:
        queue.execute(OURS.safe_tx_hash, EXECUTION)

        assert look(queued()).transaction_state is None
