from dataclasses import replace
from functools import partial

import pytest

from service.domain.approver import Approver
from service.domain.chain import AppOwnership, FactKind
from service.domain.errors import LeaseLost, Refused, Unreachable
from service.domain.hexes import ZERO_ADDRESS
from service.domain.outcomes import Advance, Outcome, Wait
from service.domain.reasons import Reason
from service.domain.snapshots import ChangeRequest, ProposalState
from service.domain.states import State
from service.steps.propose import propose
from tests.support.builders import (
    APP,
    CHAIN_ID,
    COMPOSE_HASH,
    DEVICE,
    NOW,
    OTHER_HASH,
    SAFE,
    change_request,
    hash_added,
    proposal,
    workspace,
)
from tests.support.fake_chain import FakeChain
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner, FixedClock, RecordingRequestIntents


@pytest.fixture
def run(
    chains: dict[int, FakeChain],
    queues: dict[int, FakeSafeQueue],
    signer: FakeSigner,
    intents: RecordingRequestIntents,
    clock: FixedClock,
) -> partial[Outcome]:
    return partial(propose, chains=chains, queues=queues, signer=signer, intents=intents, clock=clock)


def prepared(**overrides: object) -> ChangeRequest:
    return change_request(State.PREPARED, **overrides)


def test_a_new_proposal_is_joined_and_waited_for(run: partial[Outcome], intents: RecordingRequestIntents) -> None:
    assert run(prepared()) == Wait(10.0, Reason.WAITING_FOR_PROPOSAL)
    assert intents.joined == [((), SAFE)]


def test_a_device_that_is_not_allowed_is_part_of_the_proposal(
    run: partial[Outcome], chain: FakeChain, intents: RecordingRequestIntents
) -> None:
    chain.mine((FactKind.DEVICE_REMOVED, DEVICE))

    run(prepared())

    assert intents.joined == [((DEVICE,), SAFE)]


@pytest.mark.parametrize("state", [ProposalState.QUEUED, ProposalState.EXTERNAL])
def test_a_proposal_under_way_is_waited_for_with_the_owners(run: partial[Outcome], state: ProposalState) -> None:
    intents = RecordingRequestIntents(joins=proposal(state))

    assert run(prepared(), intents=intents) == Advance(State.PROPOSED, {"approvals_seen": 0})


def test_an_external_app_has_no_safe(run: partial[Outcome], chain: FakeChain, intents: RecordingRequestIntents) -> None:
    chain.owners[APP] = AppOwnership(has_code=True, owner="0x" + "99" * 20, pending_owner=None)

    run(prepared(workspace=workspace(external_apps=frozenset({(CHAIN_ID, APP)}))))

    assert intents.joined == [((), None)]


def test_who_approves_is_kept_with_the_proposal(
    run: partial[Outcome], chain: FakeChain, intents: RecordingRequestIntents
) -> None:
    run(prepared())

    assert intents.approver == Approver(chain.owners[APP], chain.safes[SAFE])


def test_what_owners_should_know_is_stored_before_they_are_asked(
    run: partial[Outcome], chain: FakeChain, intents: RecordingRequestIntents
) -> None:
    chain.owners[APP] = replace(chain.owners[APP], requires_tcb_up_to_date=True)

    run(prepared())

    ((warning,),) = [facts["warnings"] for facts in intents.recorded]
    assert "requireTcbUpToDate" in warning


def test_a_joined_proposal_is_not_checked_again(
    run: partial[Outcome], queue: FakeSafeQueue, intents: RecordingRequestIntents
) -> None:
    posting = proposal(ProposalState.POSTING, detail="the queue does not answer")

    assert run(prepared(proposal=posting)) == Wait(10.0, Reason.WAITING_FOR_PROPOSAL, "the queue does not answer")
    assert queue.calls == []
    assert intents.joined == []


def test_what_keeps_a_proposal_from_being_posted_is_the_reason(run: partial[Outcome]) -> None:
    fault = Reason.SAFE_SERVICE_UNREACHABLE
    posting = proposal(ProposalState.POSTING, detail="HTTP 503", fault=fault)

    assert run(prepared(proposal=posting)) == Wait(10.0, fault, "HTTP 503")


def test_a_joined_proposal_that_lacks_the_device_is_left_for_one_that_has_it(
    run: partial[Outcome], chain: FakeChain, intents: RecordingRequestIntents
) -> None:
    chain.mine((FactKind.DEVICE_REMOVED, DEVICE))

    run(prepared(proposal=proposal(ProposalState.QUEUED)))

    assert intents.joined == [((DEVICE,), SAFE)]


@pytest.mark.parametrize("state", [ProposalState.WITHDRAWN, ProposalState.WITHDRAWING, ProposalState.APPROVED])
def test_an_ended_proposal_is_joined_anew(
    run: partial[Outcome], intents: RecordingRequestIntents, state: ProposalState
) -> None:
    run(prepared(proposal=proposal(state)))

    assert intents.joined == [((), SAFE)]


def test_a_failed_proposal_fails_the_request(run: partial[Outcome]) -> None:
    outcome = run(prepared(proposal=proposal(ProposalState.FAILED, detail="422")))

    assert isinstance(outcome, Advance)
    assert (outcome.to, outcome.reason, outcome.detail) == (State.FAILED, Reason.PROPOSAL_REFUSED, "422")


def test_a_rejected_proposal_is_left_to_the_next_state(run: partial[Outcome]) -> None:
    outcome = run(prepared(proposal=proposal(ProposalState.REJECTED)))

    assert isinstance(outcome, Advance)
    assert outcome.to is State.PROPOSED


def test_an_approval_at_a_final_block_needs_no_proposal(
    run: partial[Outcome], chain: FakeChain, intents: RecordingRequestIntents
) -> None:
    chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH), empty=chain.depth)
    final = chain.view().final

    assert run(prepared()) == Advance(
        State.REGISTERED,
        {"transaction_hash": None, "evidence_block_hash": final.hash, "evidence_block_number": final.number},
        allowed_at=final.number,
    )
    assert intents.joined == []


def test_an_approval_at_the_head_waits_for_finality(run: partial[Outcome], chain: FakeChain) -> None:
    head = chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH))

    assert run(prepared()) == Advance(
        State.EXECUTED,
        {"transaction_hash": None, "evidence_block_hash": head.hash, "evidence_block_number": head.number},
    )


def test_a_known_fact_names_the_transaction(run: partial[Outcome], chain: FakeChain) -> None:
    block = chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH), empty=1)
    (fact,) = chain.facts(block.number, block.number)

    outcome = run(prepared(facts=(fact,)))

    assert isinstance(outcome, Advance)
    assert outcome.facts == {
        "transaction_hash": fact.transaction_hash,
        "evidence_block_hash": block.hash,
        "evidence_block_number": block.number,
    }


def test_a_fact_newer_than_the_view_is_read_at_its_block(run: partial[Outcome], chain: FakeChain) -> None:
    block = chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH))
    chain.lag = 1

    outcome = run(prepared(facts=chain.facts(block.number, block.number)))

    assert isinstance(outcome, Advance)
    assert outcome.to is State.EXECUTED
    assert outcome.facts["evidence_block_hash"] == block.hash


@pytest.mark.parametrize(
    "changes",
    [
        {"value": OTHER_HASH},
        {"app_contract": "0x" + "77" * 20},
        {"kind": FactKind.HASH_REMOVED},
    ],
)
def test_facts_about_something_else_are_no_evidence(
    run: partial[Outcome], chain: FakeChain, changes: dict[str, object]
) -> None:
    earlier = chain.view().head
    head = chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH))

    outcome = run(prepared(facts=(hash_added(earlier, **changes),)))

    assert isinstance(outcome, Advance)
    assert outcome.facts["evidence_block_number"] == head.number
    assert outcome.facts["transaction_hash"] is None


def test_a_fact_alone_is_no_approval(run: partial[Outcome], chain: FakeChain, intents: RecordingRequestIntents) -> None:
    block = chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH))
    chain.mine((FactKind.HASH_REMOVED, COMPOSE_HASH))

    outcome = run(prepared(facts=chain.facts(block.number, block.number)))

    assert isinstance(outcome, Wait)
    assert intents.joined == [((), SAFE)]


def test_a_delegate_that_is_missing_is_waited_for(
    run: partial[Outcome], queue: FakeSafeQueue, intents: RecordingRequestIntents
) -> None:
    queue.delegates.clear()

    with pytest.raises(Refused) as missing:
        run(prepared())

    assert missing.value.reason is Reason.PROPOSER_NOT_DELEGATE
    assert missing.value.subject == f"safe:{CHAIN_ID}:{SAFE}"
    assert intents.joined == []


def test_other_checks_before_a_proposal_end_the_request(
    run: partial[Outcome], chain: FakeChain, intents: RecordingRequestIntents
) -> None:
    chain.owners[APP] = AppOwnership(has_code=True, owner=ZERO_ADDRESS, pending_owner=None)

    outcome = run(prepared())

    assert isinstance(outcome, Advance)
    assert (outcome.to, outcome.reason) == (State.FAILED, Reason.APP_OWNERSHIP_RENOUNCED)
    assert intents.joined == []


def test_a_wish_to_cancel_comes_first(run: partial[Outcome], chain: FakeChain) -> None:
    outcome = run(prepared(cancel_requested_at=NOW))

    assert isinstance(outcome, Advance)
    assert outcome.to is State.CANCELLED
    assert chain.calls == []


def test_a_chain_taken_out_of_the_configuration_is_waited_for(run: partial[Outcome]) -> None:
    with pytest.raises(Unreachable) as caught:
        run(prepared(), chains={})

    assert caught.value.reason is Reason.CHAIN_NOT_CONFIGURED


def test_a_lost_lease_is_not_turned_into_an_end(run: partial[Outcome], intents: RecordingRequestIntents) -> None:
    intents.error = LeaseLost("another worker")

    with pytest.raises(LeaseLost):
        run(prepared())


def test_a_row_the_database_would_refuse_is_a_defect(run: partial[Outcome]) -> None:
    with pytest.raises(ValueError, match="lacks a part"):
        run(prepared(compose_hash=None))
