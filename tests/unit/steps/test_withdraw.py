from functools import partial

import pytest

from service.domain.calls import approval_call
from service.domain.chain import FactKind
from service.domain.errors import Nonsense, Refused
from service.domain.outcomes import ProposalOutcome
from service.domain.reasons import Reason
from service.domain.snapshots import Proposal, ProposalState, SafeTransactionKind, SafeTransactionState
from service.steps.withdraw import STILL_USABLE, withdraw
from tests.support.builders import APP, COMPOSE_HASH, DEVICE, OTHER_HASH, proposal, safe_transaction
from tests.support.fake_chain import FakeChain
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner, RecordingProposalIntents

OURS = safe_transaction(state=SafeTransactionState.QUEUED)
REJECTION = safe_transaction(SafeTransactionKind.REJECTION)
DELETED = ProposalOutcome(ProposalState.WITHDRAWN, None, transaction_state=SafeTransactionState.DELETED)
REJECTED = ProposalOutcome(ProposalState.WITHDRAWN, None, STILL_USABLE, rejection_state=SafeTransactionState.QUEUED)
ENDED = ProposalOutcome(ProposalState.WITHDRAWN, None)


@pytest.fixture
def intents() -> RecordingProposalIntents:
    return RecordingProposalIntents(proposal())


@pytest.fixture
def run(
    chain: FakeChain, queue: FakeSafeQueue, signer: FakeSigner, intents: RecordingProposalIntents
) -> partial[ProposalOutcome]:
    queue.add(OURS)
    return partial(withdraw, chain=chain, queue=queue, signer=signer, intents=intents, origin="Countersign cr_1")


def withdrawing(**overrides: object) -> Proposal:
    return proposal(ProposalState.WITHDRAWING, **{"transaction": OURS, "members": (), **overrides})


def test_the_highest_without_confirmations_is_deleted(
    run: partial[ProposalOutcome], queue: FakeSafeQueue, intents: RecordingProposalIntents
) -> None:
    assert run(withdrawing()) == DELETED
    assert queue.rows == {}
    assert intents.rejected == []


def test_one_that_never_arrived_needs_nothing(run: partial[ProposalOutcome], queue: FakeSafeQueue) -> None:
    queue.rows.clear()

    assert run(withdrawing(transaction=safe_transaction())) == DELETED
    assert queue.calls == ["pending", "get"]


def test_one_with_a_confirmation_is_rejected(
    run: partial[ProposalOutcome],
    queue: FakeSafeQueue,
    owners: tuple[FakeSigner, ...],
    intents: RecordingProposalIntents,
) -> None:
    queue.confirm(OURS.safe_tx_hash, owners[0].address, owners[0].sign(OURS.safe_tx_hash))

    assert run(withdrawing()) == REJECTED
    assert intents.rejected == [OURS.nonce]
    assert queue.posts == [REJECTION.safe_tx_hash]


def test_one_below_another_is_rejected_so_that_no_hole_blocks_it(
    run: partial[ProposalOutcome], queue: FakeSafeQueue
) -> None:
    queue.add(safe_transaction(nonce=1, call=approval_call(APP, OTHER_HASH, ())))

    assert run(withdrawing()) == REJECTED
    assert OURS.safe_tx_hash in queue.rows


def test_one_that_cannot_be_deleted_is_rejected(run: partial[ProposalOutcome], queue: FakeSafeQueue) -> None:
    queue.fail("delete", Refused("not the proposer"))

    assert run(withdrawing()) == REJECTED


def test_one_below_what_another_proposal_is_about_to_queue_is_rejected(run: partial[ProposalOutcome]) -> None:
    assert run(withdrawing(held_nonces=frozenset({1}))) == REJECTED


def test_one_approved_on_chain_is_rejected(
    run: partial[ProposalOutcome], chain: FakeChain, owners: tuple[FakeSigner, ...]
) -> None:
    chain.approve_hash(owners[0].address, OURS.safe_tx_hash)

    assert run(withdrawing()) == REJECTED


@pytest.mark.fault(
    "Safe Transaction Service",
    "It deletes, the answer is lost",
    "found done, no rejection is proposed",
    "the same step",
)
def test_a_deletion_whose_answer_is_lost_is_found_done(run: partial[ProposalOutcome], queue: FakeSafeQueue) -> None:
    queue.fail("delete", Nonsense("cut off", reason=Reason.SAFE_SERVICE_UNREACHABLE), after_effect=True)

    with pytest.raises(Nonsense):
        run(withdrawing())

    assert run(withdrawing()) == DELETED
    assert queue.calls.count("delete") == 1


def test_a_rejection_refused_because_the_nonce_was_used_just_now_looks_again(
    run: partial[ProposalOutcome], chain: FakeChain
) -> None:
    class UsedMeanwhile(FakeSafeQueue):
        def post(self, *_: object) -> None:
            chain.mine(nonce=1)
            raise Refused("Nonce=0 was already executed")

    queue = UsedMeanwhile([], {})
    queue.add(OURS)
    queue.fail("delete", Refused("not the proposer"))

    outcome = run(withdrawing(), queue=queue)

    assert (outcome.state, outcome.wait_seconds) == (ProposalState.WITHDRAWING, 0.0)


def test_no_rejection_is_signed_for_a_safe_that_the_key_owns(
    run: partial[ProposalOutcome], chain: FakeChain, queue: FakeSafeQueue, signer: FakeSigner
) -> None:
    chain.set_safe(owners=(signer.address,), threshold=1)
    queue.fail("delete", Refused("not the proposer"))

    assert run(withdrawing()).state is ProposalState.FAILED
    assert queue.posts == []


def test_the_rejection_is_stored_before_it_is_posted(
    run: partial[ProposalOutcome],
    queue: FakeSafeQueue,
    owners: tuple[FakeSigner, ...],
    intents: RecordingProposalIntents,
) -> None:
    queue.confirm(OURS.safe_tx_hash, owners[0].address, owners[0].sign(OURS.safe_tx_hash))
    queue.fail("post", Nonsense("cut off", reason=Reason.SAFE_SERVICE_UNREACHABLE), after_effect=True)

    with pytest.raises(Nonsense):
        run(withdrawing())

    assert intents.rejected == [OURS.nonce]
    assert run(withdrawing(rejection=REJECTION)) == REJECTED
    assert intents.rejected == [OURS.nonce]
    assert len(queue.rows) == 2


def test_a_refused_rejection_is_told(run: partial[ProposalOutcome], queue: FakeSafeQueue) -> None:
    queue.delegates.clear()
    queue.fail("delete", Refused("not the proposer"))

    outcome = run(withdrawing())

    assert (outcome.state, outcome.wait_seconds) == (ProposalState.FAILED, None)
    assert outcome.detail is not None
    assert outcome.detail.startswith("it could not be withdrawn")


@pytest.mark.parametrize("devices", [(), (DEVICE,)])
def test_what_is_allowed_already_is_approved(
    run: partial[ProposalOutcome], chain: FakeChain, queue: FakeSafeQueue, devices: tuple[str, ...]
) -> None:
    chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH))
    ours = safe_transaction(call=approval_call(APP, COMPOSE_HASH, devices))

    assert run(withdrawing(transaction=ours, devices=devices)).state is ProposalState.APPROVED
    assert queue.calls == []


def test_a_hash_without_its_device_is_not_approved(run: partial[ProposalOutcome], chain: FakeChain) -> None:
    chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH), (FactKind.DEVICE_REMOVED, DEVICE))
    ours = safe_transaction(call=approval_call(APP, COMPOSE_HASH, (DEVICE,)))

    assert run(withdrawing(transaction=ours, devices=(DEVICE,))) == DELETED


def test_a_nonce_used_meanwhile_needs_nothing(run: partial[ProposalOutcome], chain: FakeChain) -> None:
    chain.mine(nonce=1)
    outcome = run(withdrawing())
    assert (outcome.state, outcome.wait_seconds) == (ProposalState.WITHDRAWING, 15.0)

    chain.mine(empty=chain.depth)

    assert run(withdrawing()) == ProposalOutcome(
        ProposalState.WITHDRAWN, None, transaction_state=SafeTransactionState.REPLACED
    )


@pytest.mark.parametrize(
    "spent",
    [
        {"transaction": None},
        {"transaction": safe_transaction(state=SafeTransactionState.REPLACED)},
        {"safe": None, "transaction": None},
    ],
)
def test_without_a_live_transaction_it_ends(
    run: partial[ProposalOutcome], queue: FakeSafeQueue, spent: dict[str, object]
) -> None:
    assert run(withdrawing(**spent)) == ENDED
    assert queue.calls == []


def test_a_forged_rejection_is_never_signed(run: partial[ProposalOutcome], queue: FakeSafeQueue) -> None:
    forged = safe_transaction(SafeTransactionKind.REJECTION, call=approval_call(APP, OTHER_HASH, ()))

    assert run(withdrawing(rejection=forged)).state is ProposalState.FAILED
    assert queue.posts == []


def test_a_forged_approval_is_left_alone(run: partial[ProposalOutcome], queue: FakeSafeQueue) -> None:
    forged = safe_transaction(call=approval_call(APP, OTHER_HASH, ()))

    assert run(withdrawing(transaction=forged)).state is ProposalState.FAILED
    assert queue.calls == []
