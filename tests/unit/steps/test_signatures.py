from functools import partial

import pytest

from service.domain.calls import SafeCall, approval_call, rejection_call
from service.domain.chain import FactKind
from service.domain.errors import Unreachable
from service.domain.outcomes import ProposalOutcome
from service.domain.reasons import Reason
from service.domain.snapshots import Proposal, ProposalState, SafeTransactionState
from service.steps.signatures import signatures
from tests.support.builders import APP, COMPOSE_HASH, OTHER_HASH, SAFE, proposal, safe_transaction
from tests.support.fake_chain import FakeChain
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner

POLL = 60.0
OURS = safe_transaction(state=SafeTransactionState.QUEUED)
EXECUTION = "0x" + "ab" * 32
Owners = tuple[FakeSigner, FakeSigner, FakeSigner]


@pytest.fixture
def run(chain: FakeChain, queue: FakeSafeQueue) -> partial[ProposalOutcome]:
    queue.add(OURS)
    return partial(signatures, chain=chain, queue=queue, poll_seconds=POLL)


def queued(**overrides: object) -> Proposal:
    return proposal(ProposalState.QUEUED, **{"transaction": OURS, **overrides})


def use_nonce(chain: FakeChain, *, final: bool = True) -> None:
    chain.mine(nonce=OURS.nonce + 1, empty=chain.depth if final else 0)


def waiting(detail: str | None = None, **told: object) -> ProposalOutcome:
    return ProposalOutcome(ProposalState.QUEUED, POLL, detail, **told)  # type: ignore[arg-type]  # any column


class TestConfirmations:
    def test_none_yet(self, run: partial[ProposalOutcome]) -> None:
        assert run(queued()) == waiting(confirmations=(), threshold=2)

    def test_owners_are_counted_in_the_order_of_the_safe(
        self, run: partial[ProposalOutcome], queue: FakeSafeQueue, owners: Owners
    ) -> None:
        for owner in (owners[2], owners[0]):
            queue.confirm(OURS.safe_tx_hash, owner.address, owner.sign(OURS.safe_tx_hash))

        assert run(queued()) == waiting(confirmations=(owners[0].address, owners[2].address), threshold=2)

    def test_a_signature_over_another_hash_does_not_count(
        self, run: partial[ProposalOutcome], queue: FakeSafeQueue, owners: Owners
    ) -> None:
        queue.confirm(OURS.safe_tx_hash, owners[0].address, owners[0].sign(OTHER_HASH))

        assert run(queued()) == waiting(
            "1 confirmation(s) are no ECDSA signature of a current owner", confirmations=(), threshold=2
        )

    def test_a_signature_of_somebody_else_does_not_count(
        self, run: partial[ProposalOutcome], queue: FakeSafeQueue, owners: Owners, signer: FakeSigner
    ) -> None:
        queue.confirm(OURS.safe_tx_hash, owners[0].address, signer.sign(OURS.safe_tx_hash))

        assert run(queued()).confirmations == ()

    @pytest.mark.parametrize("signature", ["0x", "nonsense", "0x" + "00" * 64 + "01"])
    def test_what_is_no_ecdsa_signature_is_told_and_not_counted(
        self, run: partial[ProposalOutcome], queue: FakeSafeQueue, owners: Owners, signature: str
    ) -> None:
        queue.confirm(OURS.safe_tx_hash, owners[0].address, owners[0].sign(OURS.safe_tx_hash))
        queue.confirm(OURS.safe_tx_hash, owners[1].address, signature)

        outcome = run(queued())

        assert outcome.confirmations == (owners[0].address,)
        assert outcome.detail == "1 confirmation(s) are no ECDSA signature of a current owner"


class TestTheNonce:
    def test_used_but_not_final(self, run: partial[ProposalOutcome], chain: FakeChain, queue: FakeSafeQueue) -> None:
        use_nonce(chain, final=False)

        assert run(queued()) == waiting("nonce 0 is used, not final yet")
        assert queue.calls == []

    def test_used_by_ours(self, run: partial[ProposalOutcome], chain: FakeChain, queue: FakeSafeQueue) -> None:
        queue.execute(OURS.safe_tx_hash, EXECUTION)
        use_nonce(chain)

        assert run(queued()) == waiting(transaction_state=SafeTransactionState.EXECUTED, transaction_hash=EXECUTION)

    def test_what_the_queue_calls_executed_is_not_while_the_nonce_is_unused(
        self, run: partial[ProposalOutcome], queue: FakeSafeQueue
    ) -> None:
        queue.execute(OURS.safe_tx_hash, EXECUTION)

        assert run(queued()).transaction_state is None

    def test_used_by_ours_whose_call_failed(
        self, run: partial[ProposalOutcome], chain: FakeChain, queue: FakeSafeQueue
    ) -> None:
        queue.execute(OURS.safe_tx_hash, EXECUTION, successful=False)
        use_nonce(chain)

        assert run(queued()).state is ProposalState.FAILED

    def test_used_by_a_rejection(self, run: partial[ProposalOutcome], chain: FakeChain, queue: FakeSafeQueue) -> None:
        rejection = safe_transaction(call=rejection_call(SAFE))
        queue.add(rejection)
        queue.execute(rejection.safe_tx_hash, EXECUTION)
        use_nonce(chain)

        assert run(queued()) == ProposalOutcome(
            ProposalState.REJECTED,
            None,
            "the owners executed a rejection at nonce 0",
            transaction_state=SafeTransactionState.REPLACED,
        )

    @pytest.mark.parametrize("call", [approval_call(APP, OTHER_HASH, ()), SafeCall("0x" + "66" * 20, "0x", 0)])
    def test_used_by_another_transaction(
        self, run: partial[ProposalOutcome], chain: FakeChain, queue: FakeSafeQueue, call: SafeCall
    ) -> None:
        other = safe_transaction(call=call)
        queue.add(other)
        queue.execute(other.safe_tx_hash, EXECUTION)
        use_nonce(chain)

        outcome = run(queued())

        assert (outcome.state, outcome.wait_seconds) == (ProposalState.POSTING, 0.0)
        assert outcome.transaction_state is SafeTransactionState.REPLACED

    def test_used_by_what_the_queue_does_not_know_yet(self, run: partial[ProposalOutcome], chain: FakeChain) -> None:
        use_nonce(chain)

        assert run(queued()) == waiting("nonce 0 is used, the Safe's queue does not tell by what yet")


def test_a_vanished_transaction_is_posted_again(run: partial[ProposalOutcome], queue: FakeSafeQueue) -> None:
    queue.delete(SAFE, OURS.safe_tx_hash)

    outcome = run(queued())

    assert (outcome.state, outcome.wait_seconds) == (ProposalState.POSTING, 0.0)
    assert outcome.transaction_state is SafeTransactionState.INTENDED


class TestExecuted:
    DONE = safe_transaction(state=SafeTransactionState.EXECUTED)

    def test_the_queue_is_not_asked_any_more(
        self, run: partial[ProposalOutcome], chain: FakeChain, queue: FakeSafeQueue
    ) -> None:
        use_nonce(chain)
        chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH))

        assert run(queued(transaction=self.DONE)) == waiting()
        assert queue.calls == []

    def test_a_node_that_is_behind_proves_nothing(self, run: partial[ProposalOutcome]) -> None:
        assert run(queued(transaction=self.DONE)) == waiting()

    def test_what_was_taken_away_again_fails(self, run: partial[ProposalOutcome], chain: FakeChain) -> None:
        chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH), nonce=OURS.nonce + 1)
        chain.mine((FactKind.HASH_REMOVED, COMPOSE_HASH))
        assert run(queued(transaction=self.DONE)) == waiting()

        chain.mine(empty=chain.depth)

        detail = "the Safe executed it at nonce 0, and what it allowed was taken away again"
        assert run(queued(transaction=self.DONE)) == ProposalOutcome(ProposalState.FAILED, None, detail)


def test_without_members_it_is_withdrawn(run: partial[ProposalOutcome]) -> None:
    assert run(queued(members=())) == ProposalOutcome(ProposalState.WITHDRAWING, 0.0)


def test_without_a_transaction_it_is_posted(run: partial[ProposalOutcome]) -> None:
    assert run(queued(transaction=None)) == ProposalOutcome(ProposalState.POSTING, 0.0)


def test_a_forged_transaction_fails(run: partial[ProposalOutcome]) -> None:
    forged = safe_transaction(call=approval_call(APP, OTHER_HASH, ()))

    assert run(queued(transaction=forged)).state is ProposalState.FAILED


def test_a_service_that_does_not_answer_is_left_to_the_runner(
    run: partial[ProposalOutcome], queue: FakeSafeQueue
) -> None:
    queue.fail("get", Unreachable("timeout", reason=Reason.SAFE_SERVICE_UNREACHABLE))

    with pytest.raises(Unreachable):
        run(queued())
