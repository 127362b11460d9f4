from dataclasses import replace
from functools import partial

import pytest

from service.domain.calls import approval_call
from service.domain.chain import FactKind
from service.domain.errors import Nonsense, Refused, Unreachable
from service.domain.outcomes import ProposalOutcome
from service.domain.reasons import Reason
from service.domain.signatures import recover
from service.domain.snapshots import Proposal, ProposalState, SafeSeen, SafeTransactionState
from service.steps.post import post
from tests.support.builders import APP, COMPOSE_HASH, DEVICE, OTHER_HASH, SAFE, proposal, safe_transaction
from tests.support.fake_chain import FakeChain
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner, FixedClock, RecordingProposalIntents

QUEUED = ProposalState.QUEUED


@pytest.fixture
def intents() -> RecordingProposalIntents:
    return RecordingProposalIntents(proposal())


@pytest.fixture
def run(
    chain: FakeChain, queue: FakeSafeQueue, signer: FakeSigner, intents: RecordingProposalIntents, clock: FixedClock
) -> partial[ProposalOutcome]:
    return partial(
        post, chain=chain, queue=queue, signer=signer, intents=intents, clock=clock, origin="Countersign cr_1"
    )


def claimed(nonce: int = 0) -> Proposal:
    return proposal(transaction=safe_transaction(nonce=nonce))


def test_a_proposal_is_posted_at_the_next_nonce(
    run: partial[ProposalOutcome], queue: FakeSafeQueue, intents: RecordingProposalIntents, signer: FakeSigner
) -> None:
    assert run(proposal()).state is QUEUED
    assert intents.claimed == [0]
    assert queue.posts == [safe_transaction().safe_tx_hash]
    assert queue.origins == ["Countersign cr_1"]
    assert recover(queue.posts[0], signer.sign(queue.posts[0])) == signer.address


def test_the_nonce_counts_what_is_queued(
    run: partial[ProposalOutcome], queue: FakeSafeQueue, chain: FakeChain, intents: RecordingProposalIntents
) -> None:
    chain.mine(nonce=4)
    for nonce in (4, 5, 7):
        queue.add(safe_transaction(nonce=nonce, call=approval_call(APP, OTHER_HASH, ())))

    run(proposal())

    assert intents.claimed == [6], "the lowest free one: a hole would block what is above it"


def test_the_nonce_another_proposal_claimed_is_left_to_it(run: partial[ProposalOutcome], queue: FakeSafeQueue) -> None:
    intents = RecordingProposalIntents(proposal(), taken=frozenset({0, 1}))

    run(proposal(), intents=intents)

    assert queue.rows[queue.posts[0]].nonce == 2


def test_devices_are_approved_in_one_batch(run: partial[ProposalOutcome], queue: FakeSafeQueue) -> None:
    both = proposal(devices=(DEVICE,))

    assert run(both, intents=RecordingProposalIntents(both)).state is QUEUED
    assert queue.rows[queue.posts[0]].data == approval_call(APP, COMPOSE_HASH, (DEVICE,)).data


@pytest.mark.fault(
    "people", "The service's key becomes an owner of the Safe", "it signs nothing; the proposal fails", "the same step"
)
def test_a_key_that_became_an_owner_signs_nothing(
    run: partial[ProposalOutcome], queue: FakeSafeQueue, chain: FakeChain, signer: FakeSigner
) -> None:
    safe = chain.safes[SAFE]
    chain.safes[SAFE] = replace(safe, owners=(*safe.owners, signer.address))

    outcome = run(proposal())

    assert outcome.state is ProposalState.FAILED
    assert outcome.detail == f"{signer.address} has become an owner of {SAFE}"
    assert queue.posts == []


def test_the_nonce_is_claimed_before_the_post(
    run: partial[ProposalOutcome], queue: FakeSafeQueue, intents: RecordingProposalIntents
) -> None:
    queue.fail("post", Nonsense("cut off", reason=Reason.SAFE_SERVICE_UNREACHABLE), after_effect=True)

    with pytest.raises(Nonsense):
        run(proposal())

    assert intents.claimed == [0]
    assert run(claimed()).state is QUEUED
    assert len(queue.posts) == 1


def test_what_is_allowed_already_asks_nobody_for_a_signature(
    run: partial[ProposalOutcome], chain: FakeChain, queue: FakeSafeQueue, intents: RecordingProposalIntents
) -> None:
    block = chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH))
    replaced = proposal(transaction=safe_transaction(state=SafeTransactionState.REPLACED))

    outcome = run(replaced)

    assert outcome == ProposalOutcome(ProposalState.POSTING, 15.0, f"allowed on chain at block {block.number}")
    assert (queue.calls, intents.claimed) == ([], [])
    chain.reorg(1)
    assert run(replaced).state is QUEUED


@pytest.mark.fault(
    "workers",
    "A worker dies between its nonce and the proposal",
    "the very transaction that was stored is posted",
    "15 s, and 1 s of sweep",
)
def test_a_claimed_transaction_that_never_arrived_is_posted(
    run: partial[ProposalOutcome], queue: FakeSafeQueue, intents: RecordingProposalIntents
) -> None:
    assert run(claimed()).state is QUEUED
    assert queue.posts == [safe_transaction().safe_tx_hash]
    assert intents.claimed == []


def test_a_claimed_nonce_that_was_used_meanwhile_is_given_up(
    run: partial[ProposalOutcome], chain: FakeChain, queue: FakeSafeQueue
) -> None:
    chain.mine(nonce=1)

    outcome = run(claimed())

    assert (outcome.state, outcome.wait_seconds) == (ProposalState.POSTING, 0.0)
    assert outcome.transaction_state is SafeTransactionState.REPLACED
    assert queue.posts == []


def test_a_posted_transaction_whose_nonce_was_used_is_looked_at_in_the_queue(
    run: partial[ProposalOutcome], chain: FakeChain, queue: FakeSafeQueue
) -> None:
    queue.add(safe_transaction())
    chain.mine(nonce=1)

    assert run(claimed()).state is QUEUED


@pytest.mark.parametrize(
    "state", [SafeTransactionState.REPLACED, SafeTransactionState.EXECUTED, SafeTransactionState.DELETED]
)
def test_a_spent_transaction_is_followed_by_another(
    run: partial[ProposalOutcome], chain: FakeChain, intents: RecordingProposalIntents, state: SafeTransactionState
) -> None:
    chain.mine(nonce=1)

    assert run(proposal(transaction=safe_transaction(state=state))).state is QUEUED
    assert intents.claimed == [1]


@pytest.mark.fault(
    "Safe Transaction Service",
    "A stored transaction is not what it should be",
    "nothing is signed, the proposal fails",
    "the same step",
)
@pytest.mark.parametrize(
    "forged",
    [
        safe_transaction(safe_tx_hash="0x" + "00" * 32),
        safe_transaction(call=approval_call(APP, OTHER_HASH, ())),
        safe_transaction(call=approval_call("0x" + "77" * 20, COMPOSE_HASH, ())),
        safe_transaction(safe="0x" + "66" * 20),
    ],
    ids=["hash", "compose hash", "app", "safe"],
)
def test_a_stored_transaction_that_is_not_the_proposals_is_never_signed(
    run: partial[ProposalOutcome], queue: FakeSafeQueue, forged: object
) -> None:
    outcome = run(proposal(transaction=forged))

    assert (outcome.state, outcome.wait_seconds) == (ProposalState.FAILED, None)
    assert queue.calls == []


def test_a_claimed_transaction_is_checked_before_it_is_signed(
    run: partial[ProposalOutcome], queue: FakeSafeQueue
) -> None:
    of_another_hash = RecordingProposalIntents(proposal(compose_hash=OTHER_HASH))

    assert run(proposal(), intents=of_another_hash).state is ProposalState.FAILED
    assert queue.posts == []


def test_a_refusal_fails_with_the_services_words(run: partial[ProposalOutcome], queue: FakeSafeQueue) -> None:
    queue.delegates.clear()

    outcome = run(proposal())

    assert (outcome.state, outcome.wait_seconds) == (ProposalState.FAILED, None)
    assert outcome.detail is not None
    assert "not an owner or delegate" in outcome.detail


@pytest.mark.fault(
    "Safe Transaction Service",
    "The nonce is used between the look and the proposal",
    "the next free nonce is claimed",
    "the same step",
)
def test_a_refusal_because_the_nonce_was_used_just_now_takes_the_next(
    chain: FakeChain, run: partial[ProposalOutcome]
) -> None:
    class UsedMeanwhile(FakeSafeQueue):
        def post(self, *_: object) -> None:
            chain.mine(nonce=1)
            raise Refused("Nonce=0 was already executed")

    outcome = run(proposal(), queue=UsedMeanwhile([], {}))

    assert outcome.transaction_state is SafeTransactionState.REPLACED
    assert (outcome.state, outcome.wait_seconds) == (ProposalState.POSTING, 0.0)


def test_a_refusal_because_the_service_knows_the_nonce_as_used_waits_for_the_node(
    run: partial[ProposalOutcome], queue: FakeSafeQueue
) -> None:
    other = safe_transaction(call=approval_call(APP, OTHER_HASH, ()))
    queue.add(other)
    queue.execute(other.safe_tx_hash, OTHER_HASH)

    outcome = run(proposal())

    assert (outcome.state, outcome.wait_seconds) == (ProposalState.POSTING, 15.0)
    assert outcome.transaction_state is SafeTransactionState.REPLACED


def test_a_refused_transaction_holds_no_nonce(run: partial[ProposalOutcome], queue: FakeSafeQueue) -> None:
    queue.delegates.clear()

    assert run(proposal()).transaction_state is SafeTransactionState.DELETED


def test_a_claimed_nonce_above_a_hole_is_given_up(run: partial[ProposalOutcome], queue: FakeSafeQueue) -> None:
    outcome = run(claimed(2))

    assert (outcome.state, outcome.wait_seconds) == (ProposalState.POSTING, 0.0)
    assert outcome.transaction_state is SafeTransactionState.DELETED
    assert queue.posts == []
    assert run(proposal(transaction=claimed(2).transaction, held_nonces=frozenset({0, 1}))).state is QUEUED


def test_what_the_next_look_needs_is_remembered(
    run: partial[ProposalOutcome], chain: FakeChain, clock: FixedClock
) -> None:
    outcome = run(proposal())

    assert outcome.safe_seen == SafeSeen(chain.safes[SAFE].owners, 2, None, ())
    assert (outcome.threshold, outcome.news_at, outcome.delegate_checked_at) == (2, clock.now(), clock.now())


def test_a_safe_that_is_gone_fails(run: partial[ProposalOutcome], chain: FakeChain) -> None:
    chain.safes.clear()

    outcome = run(proposal())

    assert outcome.state is ProposalState.FAILED
    assert outcome.detail is not None
    assert SAFE in outcome.detail


def test_a_service_that_does_not_answer_is_left_to_the_runner(
    run: partial[ProposalOutcome], queue: FakeSafeQueue
) -> None:
    queue.fail("pending", Unreachable("timeout", reason=Reason.SAFE_SERVICE_UNREACHABLE))

    with pytest.raises(Unreachable):
        run(proposal())


def test_without_members_nothing_is_posted(run: partial[ProposalOutcome], queue: FakeSafeQueue) -> None:
    assert run(proposal(members=())) == ProposalOutcome(ProposalState.WITHDRAWN, None)
    assert queue.calls == []


def test_without_members_a_claimed_transaction_is_withdrawn(
    run: partial[ProposalOutcome], queue: FakeSafeQueue
) -> None:
    abandoned = proposal(members=(), transaction=safe_transaction())

    assert run(abandoned) == ProposalOutcome(ProposalState.WITHDRAWING, 0.0)
    assert queue.calls == []


def test_a_proposal_without_a_safe_is_a_defect(run: partial[ProposalOutcome]) -> None:
    with pytest.raises(ValueError, match="has no Safe"):
        run(proposal(safe=None))
