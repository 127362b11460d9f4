from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from pydantic import SecretStr

from service.domain.chain import AppOwnership, FactKind
from service.domain.errors import Busy, CvmBusy, Nonsense, Refused, Unauthorized, Unreachable
from service.domain.hexes import ZERO_ADDRESS
from service.domain.outcomes import Advance, Facts, Notice, Outcome, Wait
from service.domain.phala_facts import Operation, OperationStatus
from service.domain.reasons import Reason
from service.domain.snapshots import ChangeRequest, Intake
from service.domain.states import State
from service.steps.prepare import prepare
from tests.support.builders import (
    APP,
    CHAIN_ID,
    COMPOSE_HASH,
    DEVICE,
    NOW,
    PATCH,
    SAFE,
    TOKEN,
    VM_UUID,
    change_request,
    workspace,
)
from tests.support.fake_chain import FakeChain
from tests.support.fake_phala import FakePhala
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner, FixedClock, RecordingRequestIntents

Run = partial[Outcome]
NO_HASH_MOVED = {"vcpu": 4, "memory": 8192}
OTHER_APP = "0x" + "77" * 20

HANDED_IN = Facts(prepared_at=NOW, token_expires_at=NOW + timedelta(days=14))


@pytest.fixture
def run(
    phala: FakePhala,
    chains: dict[int, FakeChain],
    queues: dict[int, FakeSafeQueue],
    signer: FakeSigner,
    intents: RecordingRequestIntents,
    clock: FixedClock,
) -> Run:
    return partial(prepare, phala=phala, chains=chains, queues=queues, signer=signer, intents=intents, clock=clock)


def permitted(**overrides: Any) -> ChangeRequest:
    return change_request(allow_without_approval=True, workspace=workspace(allow_without_approval=True), **overrides)


def handed_in(**overrides: Any) -> ChangeRequest:
    columns = {
        "intake": Intake.PREPARED,
        "patch": None,
        "compose_hash": COMPOSE_HASH,
        "commit_token": SecretStr(TOKEN),
        "token_expires_at": None,
        "app_contract": APP,
        "chain_id": CHAIN_ID,
        "device_id": DEVICE,
    }
    return change_request(**{**columns, **overrides})


def assert_failed(outcome: Outcome, reason: Reason, phala: FakePhala) -> None:
    assert isinstance(outcome, Advance)
    assert (outcome.to, outcome.reason) == (State.FAILED, reason)
    assert outcome.detail
    assert "prepare" not in phala.calls


def test_a_patch_is_prepared(run: Run, phala: FakePhala, intents: RecordingRequestIntents) -> None:
    outcome = run(change_request())

    assert isinstance(outcome, Advance)
    assert outcome.to is State.PREPARED
    assert outcome.facts["compose_hash"] == phala.hash_of(PATCH)
    assert outcome.facts["device_id"] == DEVICE
    assert outcome.facts["prepared_at"] == NOW
    assert outcome.facts["token_expires_at"] == NOW + timedelta(days=14)
    correlation_id = phala.commit(
        VM_UUID, SecretStr(str(outcome.facts["commit_token"])), outcome.facts["compose_hash"], "already-registered"
    )
    assert correlation_id == "op-1"
    assert intents.recorded == [
        {"vm_uuid": VM_UUID, "cvm_name": "my-app", "chain_id": CHAIN_ID, "app_contract": APP, "device_id": DEVICE},
        {"prepare_attempted_at": NOW},
    ]


def test_the_intent_is_stored_before_the_patch_is_sent(
    run: Run, phala: FakePhala, intents: RecordingRequestIntents
) -> None:
    phala.fail("prepare", Nonsense("cut off", reason=Reason.PHALA_UNREACHABLE))

    with pytest.raises(Nonsense):
        run(change_request())

    assert intents.all_facts["prepare_attempted_at"] == NOW


def test_a_wish_to_cancel_is_served_before_anything_is_asked(run: Run, phala: FakePhala) -> None:
    outcome = run(change_request(cancel_requested_at=NOW))

    assert isinstance(outcome, Advance)
    assert (outcome.to, outcome.reason) == (State.CANCELLED, Reason.CANCELLED_BY_USER)
    assert phala.calls == []


def test_a_passed_deadline_expires(run: Run) -> None:
    outcome = run(change_request(deadline_at=NOW))

    assert isinstance(outcome, Advance)
    assert (outcome.to, outcome.reason) == (State.EXPIRED, Reason.DEADLINE_PASSED)


def test_an_ended_token_without_a_patch_expires(run: Run) -> None:
    outcome = run(handed_in(token_expires_at=NOW))

    assert isinstance(outcome, Advance)
    assert (outcome.to, outcome.reason) == (State.EXPIRED, Reason.TOKEN_EXPIRED)


def test_an_unknown_cvm_fails(run: Run, phala: FakePhala) -> None:
    assert_failed(run(change_request(cvm_id="nobody")), Reason.CVM_NOT_FOUND, phala)


def test_an_ambiguous_cvm_fails(run: Run, phala: FakePhala) -> None:
    phala.fail("cvm", Refused("several CVMs have this name"))

    assert_failed(run(change_request()), Reason.CVM_NOT_FOUND, phala)


def test_a_refused_key_fails(run: Run, phala: FakePhala) -> None:
    phala.fail("cvm", Unauthorized("no access"))

    assert_failed(run(change_request()), Reason.PHALA_UNAUTHORIZED, phala)


def test_a_cvm_held_by_another_request_fails(run: Run, phala: FakePhala, intents: RecordingRequestIntents) -> None:
    intents.error = CvmBusy("cr_0 holds it")

    assert_failed(run(change_request()), Reason.CVM_BUSY, phala)


def test_an_unreachable_phala_cloud_is_left_to_the_runner(run: Run, phala: FakePhala) -> None:
    phala.fail("cvm", Unreachable("timeout", reason=Reason.PHALA_UNREACHABLE))

    with pytest.raises(Unreachable):
        run(change_request())


def test_a_resolved_cvm_stays_the_same_when_it_is_renamed(run: Run, phala: FakePhala) -> None:
    phala.info = replace(phala.info, name="renamed")

    outcome = run(change_request(vm_uuid=VM_UUID))

    assert isinstance(outcome, Advance)
    assert outcome.to is State.PREPARED


OFF_CHAIN = pytest.mark.parametrize(
    "lacks", [{"app_contract": None, "chain_id": None}, {"app_contract": None}, {"chain_id": None}]
)


@OFF_CHAIN
def test_a_cvm_without_onchain_kms_is_refused(run: Run, phala: FakePhala, lacks: dict[str, Any]) -> None:
    phala.info = replace(phala.info, **lacks)

    outcome = run(change_request())

    assert_failed(outcome, Reason.APPROVAL_NOT_POSSIBLE, phala)
    assert outcome.detail == "the CVM has no on-chain KMS"


def test_a_patch_that_moves_no_hash_is_refused(run: Run, phala: FakePhala) -> None:
    outcome = run(change_request(patch=NO_HASH_MOVED))

    assert_failed(outcome, Reason.APPROVAL_NOT_POSSIBLE, phala)
    assert outcome.detail == "the patch moves no compose hash"


@pytest.mark.parametrize("wish", [True, False])
def test_a_request_and_its_workspace_must_both_permit_a_change_without_approval(
    run: Run, phala: FakePhala, *, wish: bool
) -> None:
    half = change_request(
        patch=NO_HASH_MOVED, allow_without_approval=wish, workspace=workspace(allow_without_approval=not wish)
    )

    assert_failed(run(half), Reason.APPROVAL_NOT_POSSIBLE, phala)


@pytest.mark.parametrize("lacks", [{"app_contract": None, "chain_id": None}, {"app_contract": None}])
def test_a_permitted_change_is_applied_at_once(run: Run, phala: FakePhala, lacks: dict[str, Any]) -> None:
    phala.info = replace(phala.info, **lacks)

    outcome = run(permitted())

    assert outcome == Advance(State.COMMITTED, {"correlation_id": "op-1"})


def test_a_permitted_change_needs_no_registered_safe(run: Run, chain: FakeChain) -> None:
    chain.owners.clear()

    assert run(permitted(patch=NO_HASH_MOVED)) == Advance(State.COMMITTED, {"correlation_id": "op-1"})


def test_a_permitted_change_whose_answer_was_lost_is_adopted_instead_of_repeated(
    run: Run, phala: FakePhala, clock: FixedClock
) -> None:
    phala.fail("prepare", Nonsense("cut off", reason=Reason.PHALA_UNREACHABLE), after_effect=True)
    with pytest.raises(Nonsense):
        run(permitted(patch=NO_HASH_MOVED))
    clock.advance(seconds=5)

    outcome = run(permitted(patch=NO_HASH_MOVED, prepare_attempted_at=NOW))

    assert outcome == Advance(State.COMMITTED, {"correlation_id": "op-1"})
    assert phala.calls.count("prepare") == 1


def test_a_permitted_change_is_found_though_phala_clouds_clock_is_behind_ours(
    run: Run, phala: FakePhala, clock: FixedClock
) -> None:
    clock.advance(seconds=-60)
    phala.fail("prepare", Nonsense("cut off", reason=Reason.PHALA_UNREACHABLE), after_effect=True)
    with pytest.raises(Nonsense):
        run(permitted(patch=NO_HASH_MOVED))
    clock.advance(seconds=65)

    outcome = run(permitted(patch=NO_HASH_MOVED, prepare_attempted_at=NOW))

    assert outcome == Advance(State.COMMITTED, {"correlation_id": "op-1"})
    assert phala.calls.count("prepare") == 1


def test_an_operation_just_before_counts_only_if_there_is_none_since(
    run: Run, phala: FakePhala, clock: FixedClock
) -> None:
    for correlation_id, seconds in (("before", -3), ("ours", 1), ("later", 4)):
        started = NOW + timedelta(seconds=seconds)
        phala.history.append(Operation(correlation_id, OperationStatus.COMPLETED, started, None, None))
    clock.advance(seconds=9)

    outcome = run(permitted(patch=NO_HASH_MOVED, prepare_attempted_at=NOW))

    assert outcome == Advance(State.COMMITTED, {"correlation_id": "ours"})


@pytest.mark.parametrize("seconds", [-3, 1])
@pytest.mark.parametrize(
    "other", [{"is_update": False}, {"status": OperationStatus.FAILED}], ids=["a restart by somebody", "failed"]
)
def test_an_operation_that_is_not_this_change_or_failed_is_not_taken_for_it(
    run: Run, phala: FakePhala, clock: FixedClock, other: dict[str, Any], seconds: int
) -> None:
    started = NOW + timedelta(seconds=seconds)
    restart = Operation("op-x", OperationStatus.COMPLETED, started, None, None)
    phala.history.append(replace(restart, **other))
    clock.advance(seconds=9)

    outcome = run(permitted(patch=NO_HASH_MOVED, prepare_attempted_at=NOW))

    assert outcome == Advance(State.COMMITTED, {"correlation_id": "op-2"})
    assert phala.calls.count("prepare") == 1


def test_a_permitted_change_that_never_arrived_is_sent_again(
    run: Run, clock: FixedClock, intents: RecordingRequestIntents
) -> None:
    clock.advance(seconds=5)

    outcome = run(permitted(patch=NO_HASH_MOVED, prepare_attempted_at=NOW))

    assert outcome == Advance(State.COMMITTED, {"correlation_id": "op-1"})
    assert intents.all_facts["prepare_attempted_at"] == NOW


@pytest.mark.fault(
    "workers",
    "A worker dies between the first prepare and its answer",
    "prepared again: the same hash, a fresh token, the lost one is dead",
    "15 s, and 1 s of sweep",
)
def test_a_prepare_whose_answer_was_lost_is_read_back_by_preparing_again(run: Run, phala: FakePhala) -> None:
    phala.fail("prepare", Nonsense("cut off", reason=Reason.PHALA_UNREACHABLE), after_effect=True)
    with pytest.raises(Nonsense):
        run(change_request())

    outcome = run(change_request(prepare_attempted_at=NOW))

    assert isinstance(outcome, Advance)
    assert outcome.facts["compose_hash"] == phala.hash_of(PATCH)
    assert "operations" not in phala.calls


def test_an_unexpected_change_at_once_raises_an_alert(run: Run, phala: FakePhala) -> None:
    phala.unchanged = True

    outcome = run(change_request())

    assert isinstance(outcome, Advance)
    assert outcome.to is State.COMMITTED
    ((notice, data),) = outcome.notices
    assert notice is Notice.ALERT
    assert data["correlation_id"] == "op-1"


@pytest.mark.parametrize("change", ["chains", "queues"])
def test_a_chain_that_is_not_configured_fails(run: Run, phala: FakePhala, change: str) -> None:
    assert_failed(run(change_request(), **{change: {}}), Reason.CHAIN_NOT_CONFIGURED, phala)


def test_what_cannot_be_approved_is_refused_before_the_patch(run: Run, phala: FakePhala, chain: FakeChain) -> None:
    chain.owners[APP] = AppOwnership(has_code=True, owner="0x" + "99" * 20, pending_owner=None)

    assert_failed(run(change_request()), Reason.APP_OWNER_NOT_REGISTERED, phala)


def test_a_contract_that_is_no_app_is_not_asked_what_it_allows(run: Run, phala: FakePhala, chain: FakeChain) -> None:
    chain.owners[APP] = replace(chain.owners[APP], is_app=False)

    for request in (change_request(), handed_in()):
        assert_failed(run(request), Reason.APP_CONTRACT_FOREIGN, phala)
    assert "allowed" not in chain.calls


def test_what_an_app_without_owner_allows_already_needs_none(run: Run, phala: FakePhala, chain: FakeChain) -> None:
    chain.owners[APP] = replace(chain.owners[APP], owner=ZERO_ADDRESS)
    assert_failed(run(handed_in()), Reason.APP_OWNERSHIP_RENOUNCED, phala)

    chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH))

    assert run(handed_in()) == Advance(State.PREPARED, HANDED_IN)


def test_what_the_contract_would_refuse_is_known_before_the_patch(run: Run, phala: FakePhala, chain: FakeChain) -> None:
    chain.reverts[APP] = "paused"

    assert_failed(run(change_request()), Reason.SIMULATION_FAILED, phala)


def test_a_device_that_cannot_be_added_is_known_before_the_patch(run: Run, phala: FakePhala, chain: FakeChain) -> None:
    chain.code_hashes.clear()
    chain.mine((FactKind.DEVICE_REMOVED, DEVICE))

    assert_failed(run(change_request()), Reason.MULTISEND_MISSING, phala)


def test_a_device_nobody_tells_before_the_patch_is_left_out(run: Run, phala: FakePhala, chain: FakeChain) -> None:
    phala.info = replace(phala.info, device_id=None)
    chain.code_hashes.clear()

    outcome = run(change_request())

    assert isinstance(outcome, Advance)
    assert outcome.to is State.PREPARED


def test_what_owners_should_know_is_stored_once(run: Run, chain: FakeChain, intents: RecordingRequestIntents) -> None:
    chain.safes[SAFE] = replace(chain.safes[SAFE], guard=OTHER_APP)
    run(change_request(warnings=("about the patch",)))
    (first, second) = intents.all_facts["warnings"]
    assert first == "about the patch"
    assert OTHER_APP in second

    intents.recorded.clear()
    run(change_request(warnings=(first, second)))

    assert "warnings" not in intents.all_facts


def test_a_refused_patch_fails_with_phalas_words(run: Run, phala: FakePhala) -> None:
    phala.fail("prepare", Refused("compose file is invalid"))

    outcome = run(change_request())

    assert isinstance(outcome, Advance)
    assert (outcome.to, outcome.reason) == (State.FAILED, Reason.PREPARE_REFUSED)
    assert outcome.detail == "compose file is invalid"


@pytest.mark.parametrize(
    "fault", [Busy("another operation"), Unreachable("connection refused", reason=Reason.PHALA_UNREACHABLE)]
)
def test_a_prepare_known_not_to_have_landed_forgets_its_attempt(
    run: Run, phala: FakePhala, fault: Busy | Unreachable
) -> None:
    phala.fail("prepare", fault)

    outcome = run(change_request(attempts=2))

    assert outcome == Wait(5.0, fault.reason, fault.detail, {"prepare_attempted_at": None}, failed_attempt=True)


@pytest.mark.parametrize("fault", [Busy("409"), Unreachable("refused", reason=Reason.PHALA_UNREACHABLE)])
def test_an_earlier_attempt_without_an_answer_is_not_forgotten_meanwhile(
    run: Run, phala: FakePhala, clock: FixedClock, fault: Exception
) -> None:
    """Its operation keeps the CVM busy before it is listed: forgotten, it would be applied a second time."""
    clock.advance(seconds=5)
    phala.fail("prepare", fault)

    outcome = run(permitted(patch=NO_HASH_MOVED, prepare_attempted_at=NOW))

    assert isinstance(outcome, Wait)
    assert outcome.facts == {"prepare_attempted_at": NOW}


@pytest.mark.parametrize(
    "confusion", [{"app_contract": OTHER_APP}, {"chain_id": 1}, {"device_id": "0x" + "ee" * 32}, {"chain_id": None}]
)
def test_a_prepared_answer_for_something_else_fails(run: Run, phala: FakePhala, confusion: dict[str, object]) -> None:
    phala.confusion = confusion

    outcome = run(change_request())

    assert isinstance(outcome, Advance)
    assert (outcome.to, outcome.reason) == (State.FAILED, Reason.PREPARED_MISMATCH)
    assert "commit_token" not in outcome.facts


def test_a_prepared_update_goes_on_without_another_prepare(
    run: Run, phala: FakePhala, intents: RecordingRequestIntents
) -> None:
    assert run(handed_in()) == Advance(State.PREPARED, HANDED_IN)
    assert "prepare" not in phala.calls
    assert intents.all_facts["vm_uuid"] == VM_UUID


def test_a_known_end_of_the_token_is_kept(run: Run) -> None:
    expires_at = NOW + timedelta(days=3)

    outcome = run(handed_in(token_expires_at=expires_at))

    assert outcome == Advance(State.PREPARED, Facts(prepared_at=NOW, token_expires_at=expires_at))


@pytest.mark.parametrize("stored", [{"app_contract": OTHER_APP}, {"chain_id": 1}, {"device_id": "0x" + "ee" * 32}])
def test_a_prepared_update_of_another_cvm_fails_before_it_takes_the_cvm(
    run: Run, phala: FakePhala, intents: RecordingRequestIntents, stored: dict[str, Any]
) -> None:
    assert_failed(run(handed_in(**stored)), Reason.PREPARED_MISMATCH, phala)
    assert intents.recorded == []


@OFF_CHAIN
def test_a_prepared_update_for_a_cvm_without_onchain_kms_is_refused(
    run: Run, phala: FakePhala, lacks: dict[str, Any]
) -> None:
    phala.info = replace(phala.info, **lacks)

    assert_failed(run(handed_in(app_contract=None, chain_id=None)), Reason.APPROVAL_NOT_POSSIBLE, phala)


def test_a_prepared_update_takes_the_device_from_the_cvm(run: Run) -> None:
    assert run(handed_in(device_id=None)) == Advance(State.PREPARED, HANDED_IN)


def test_a_prepared_update_of_which_nobody_tells_the_device_fails(run: Run, phala: FakePhala) -> None:
    phala.info = replace(phala.info, device_id=None)

    assert_failed(run(handed_in(device_id=None)), Reason.PREPARED_MISMATCH, phala)


def test_a_known_hash_is_simulated(run: Run, phala: FakePhala, chain: FakeChain) -> None:
    run(handed_in())
    assert chain.calls.count("simulate") == 1
    chain.mine((FactKind.DEVICE_REMOVED, DEVICE))
    run(handed_in())
    assert chain.calls.count("simulate") == 3
    assert "prepare" not in phala.calls


def test_an_already_allowed_hash_needs_no_safe(run: Run, chain: FakeChain) -> None:
    chain.owners[APP] = AppOwnership(has_code=True, owner="0x" + "99" * 20, pending_owner=None)
    chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH))

    assert run(handed_in()) == Advance(State.PREPARED, HANDED_IN)


def test_an_external_app_needs_no_safe(run: Run, chain: FakeChain) -> None:
    chain.owners[APP] = AppOwnership(has_code=True, owner="0x" + "99" * 20, pending_owner=None)
    external = workspace(safes=frozenset(), external_apps=frozenset({(CHAIN_ID, APP)}))

    outcome = run(change_request(workspace=external))

    assert isinstance(outcome, Advance)
    assert outcome.to is State.PREPARED
    assert SAFE not in str(outcome)
