from functools import partial

import pytest

from service.domain.errors import NotFound, Unauthorized, Unreachable
from service.domain.outcomes import Advance, Outcome, Wait
from service.domain.phala_facts import Operation, OperationStatus, Running
from service.domain.reasons import Reason
from service.domain.snapshots import ChangeRequest
from service.domain.states import State
from service.steps.track import track
from tests.support.builders import COMPOSE_HASH, NOW, OTHER_HASH, change_request, workspace
from tests.support.fake_phala import FakePhala
from tests.support.fakes import FixedClock


@pytest.fixture
def run(phala: FakePhala, clock: FixedClock) -> partial[Outcome]:
    return partial(track, phala=phala, clock=clock)


def committed(**overrides: object) -> ChangeRequest:
    return change_request(State.COMMITTED, **{"correlation_id": "op-1", "commit_token": None, **overrides})


def operation(phala: FakePhala, status: OperationStatus, error: str | None = None) -> None:
    phala.history[:] = [Operation("op-1", status, NOW, COMPOSE_HASH, error)]


def completed(evidence: str) -> Advance:
    return Advance(State.COMPLETED, {"running_evidence": evidence})


def assert_failed(outcome: Outcome, reason: Reason) -> None:
    assert isinstance(outcome, Advance)
    assert (outcome.to, outcome.reason) == (State.FAILED, reason)


def test_an_operation_under_way_is_waited_for(run: partial[Outcome], phala: FakePhala) -> None:
    operation(phala, OperationStatus.IN_PROGRESS)

    outcome = run(committed())

    assert isinstance(outcome, Wait)
    assert (outcome.seconds, outcome.reason) == (2.0, Reason.WAITING_FOR_CVM)
    assert outcome.detail is not None
    assert outcome.detail.startswith("operation in_progress, CVM running, attests 0x1111")


@pytest.mark.parametrize(("elapsed", "pause"), [(0, 2.0), (20, 5.0), (60, 15.0), (3000, 15.0)])
def test_pauses_grow(run: partial[Outcome], phala: FakePhala, clock: FixedClock, elapsed: float, pause: float) -> None:
    operation(phala, OperationStatus.IN_PROGRESS)
    clock.advance(seconds=elapsed)

    outcome = run(committed())

    assert isinstance(outcome, Wait)
    assert outcome.seconds == pause


@pytest.mark.parametrize(("poll_seconds", "pause"), [(0.5, 0.5), (20.0, 20.0)])
def test_the_first_pause_is_a_setting(
    run: partial[Outcome], phala: FakePhala, poll_seconds: float, pause: float
) -> None:
    operation(phala, OperationStatus.IN_PROGRESS)

    outcome = run(committed(), poll_seconds=poll_seconds)

    assert isinstance(outcome, Wait)
    assert outcome.seconds == pause


def test_the_attestation_is_the_first_evidence(run: partial[Outcome], phala: FakePhala) -> None:
    operation(phala, OperationStatus.COMPLETED)
    phala.runs = Running(COMPOSE_HASH, OTHER_HASH, "starting")

    assert run(committed()) == completed("attestation")


def test_the_cvm_info_is_the_second_evidence(run: partial[Outcome], phala: FakePhala) -> None:
    operation(phala, OperationStatus.COMPLETED)
    phala.runs = Running(None, COMPOSE_HASH, "running")

    assert run(committed()) == completed("cvm_info")


@pytest.mark.parametrize(
    "runs", [Running(None, COMPOSE_HASH, "starting"), Running(None, OTHER_HASH, "running"), Running(None, None, "off")]
)
def test_what_is_not_seen_is_waited_for(run: partial[Outcome], phala: FakePhala, runs: Running) -> None:
    operation(phala, OperationStatus.COMPLETED)
    phala.runs = runs

    assert isinstance(run(committed()), Wait)


def test_the_right_hash_before_the_operation_ended_may_be_the_old_boot(run: partial[Outcome], phala: FakePhala) -> None:
    operation(phala, OperationStatus.IN_PROGRESS)
    phala.runs = Running(COMPOSE_HASH, COMPOSE_HASH, "running")

    assert isinstance(run(committed()), Wait)


def test_an_operation_that_is_not_listed_stops_counting_after_a_while(
    run: partial[Outcome], phala: FakePhala, clock: FixedClock
) -> None:
    phala.runs = Running(COMPOSE_HASH, COMPOSE_HASH, "running")

    outcome = run(committed())
    assert isinstance(outcome, Wait)
    assert outcome.detail is not None
    assert outcome.detail.startswith("operation not listed")

    clock.advance(seconds=30)
    assert run(committed()) == completed("attestation")


def test_another_operation_is_not_ours(run: partial[Outcome], phala: FakePhala) -> None:
    operation(phala, OperationStatus.FAILED, "somebody else's")

    assert isinstance(run(committed(correlation_id="op-2")), Wait)


@pytest.mark.fault("Phala Cloud", "The operation fails", "`failed` with `operation_failed`", "the next look, 5 to 15 s")
def test_a_failed_operation_fails(run: partial[Outcome], phala: FakePhala) -> None:
    operation(phala, OperationStatus.FAILED, "image pull failed")

    outcome = run(committed())

    assert_failed(outcome, Reason.OPERATION_FAILED)
    assert isinstance(outcome, Advance)
    assert outcome.detail == "image pull failed"


def test_another_attested_hash_after_the_operation_fails_when_it_persists(
    run: partial[Outcome], phala: FakePhala, clock: FixedClock
) -> None:
    operation(phala, OperationStatus.COMPLETED)
    phala.runs = Running(OTHER_HASH, COMPOSE_HASH, "running")
    seen = run(committed())
    assert isinstance(seen, Wait)
    assert seen.facts == {"other_hash_since": NOW}

    clock.advance(seconds=30)

    assert_failed(run(committed(other_hash_since=NOW)), Reason.OTHER_HASH_RUNNING)


@pytest.mark.fault(
    "Phala Cloud", "An attestation is stale after the update", "another hash is believed only when it persists", "30 s"
)
def test_a_stale_attestation_fails_no_good_update(run: partial[Outcome], phala: FakePhala, clock: FixedClock) -> None:
    operation(phala, OperationStatus.COMPLETED)
    phala.runs = Running(OTHER_HASH, COMPOSE_HASH, "running")
    clock.advance(seconds=29)
    assert isinstance(run(committed(other_hash_since=NOW)), Wait)

    phala.runs = Running(COMPOSE_HASH, COMPOSE_HASH, "running")
    clock.advance(minutes=5)

    assert run(committed(other_hash_since=NOW)) == completed("attestation")


def test_another_hash_that_is_not_attested_any_more_is_forgotten(run: partial[Outcome], phala: FakePhala) -> None:
    operation(phala, OperationStatus.COMPLETED)
    phala.runs = Running(None, None, "starting")

    outcome = run(committed(other_hash_since=NOW))

    assert isinstance(outcome, Wait)
    assert outcome.facts == {"other_hash_since": None}


def test_at_the_deadline_one_look_at_another_hash_is_enough(
    run: partial[Outcome], phala: FakePhala, clock: FixedClock
) -> None:
    operation(phala, OperationStatus.COMPLETED)
    phala.runs = Running(OTHER_HASH, COMPOSE_HASH, "running")
    clock.advance(hours=1)

    assert_failed(run(committed()), Reason.OTHER_HASH_RUNNING)


def test_another_attested_hash_without_a_listed_operation_is_waited_over(
    run: partial[Outcome], phala: FakePhala, clock: FixedClock
) -> None:
    phala.runs = Running(OTHER_HASH, COMPOSE_HASH, "running")
    clock.advance(minutes=5)

    assert isinstance(run(committed()), Wait)


@pytest.mark.fault(
    "Phala Cloud",
    "The CVM never runs the approved hash",
    "`failed` with `not_running_in_time`",
    "60 min unless the workspace says otherwise",
)
def test_the_deadline_of_the_workspace(run: partial[Outcome], phala: FakePhala, clock: FixedClock) -> None:
    operation(phala, OperationStatus.IN_PROGRESS)
    request = committed(workspace=workspace(run_deadline_seconds=60))
    clock.advance(seconds=59)
    assert isinstance(run(request), Wait)

    clock.advance(seconds=1)

    assert_failed(run(request), Reason.NOT_RUNNING_IN_TIME)


def test_what_runs_is_seen_after_the_deadline_too(run: partial[Outcome], phala: FakePhala, clock: FixedClock) -> None:
    operation(phala, OperationStatus.COMPLETED)
    phala.runs = Running(COMPOSE_HASH, COMPOSE_HASH, "running")
    clock.advance(hours=2)

    assert run(committed()) == completed("attestation")


def test_a_change_applied_at_once_completes_with_its_operation(run: partial[Outcome], phala: FakePhala) -> None:
    at_once = committed(compose_hash=None, prepared_at=None, token_expires_at=None)
    operation(phala, OperationStatus.IN_PROGRESS)
    assert isinstance(run(at_once), Wait)

    operation(phala, OperationStatus.COMPLETED)

    assert run(at_once) == completed("operation")
    assert "running" not in phala.calls


@pytest.mark.fault(
    "Phala Cloud",
    "It says nothing about what runs",
    "silence is no failure: looked for until it answers or the request's deadline",
    "the request's deadline, 30 days unless set",
)
def test_silence_is_no_failure(run: partial[Outcome], phala: FakePhala, clock: FixedClock) -> None:
    clock.advance(hours=2)
    phala.fail("operations", Unreachable("timeout", reason=Reason.PHALA_UNREACHABLE))

    with pytest.raises(Unreachable):
        run(committed())


def test_the_deadline_of_the_request_ends_the_silence(
    run: partial[Outcome], phala: FakePhala, clock: FixedClock
) -> None:
    clock.advance(days=30)
    phala.fail("operations", Unreachable("timeout", reason=Reason.PHALA_UNREACHABLE))

    assert_failed(run(committed()), Reason.NOT_RUNNING_IN_TIME)


def test_a_deadline_of_the_request_before_the_workspaces_does_not_end_it(
    run: partial[Outcome], phala: FakePhala, clock: FixedClock
) -> None:
    clock.advance(minutes=59)
    phala.fail("operations", Unreachable("timeout", reason=Reason.PHALA_UNREACHABLE))

    with pytest.raises(Unreachable):
        run(committed(deadline_at=NOW))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(Unauthorized("no access"), Reason.PHALA_UNAUTHORIZED), (NotFound("gone"), Reason.CVM_NOT_FOUND)],
)
def test_a_lost_key_is_waited_for_until_the_deadline(
    run: partial[Outcome], phala: FakePhala, clock: FixedClock, fault: Exception, reason: Reason
) -> None:
    phala.fail("operations", fault, fault)
    with pytest.raises(Unreachable) as caught:
        run(committed())
    assert caught.value.reason is reason

    clock.advance(hours=1)

    assert_failed(run(committed()), reason)


def test_a_request_without_a_cvm_is_a_defect(run: partial[Outcome]) -> None:
    with pytest.raises(ValueError, match="has no vm_uuid"):
        run(committed(vm_uuid=None))


def test_an_operation_seen_without_any_time_is_looked_for_since_the_state(
    run: partial[Outcome], phala: FakePhala
) -> None:
    operation(phala, OperationStatus.COMPLETED)

    timeless = committed(compose_hash=None, prepared_at=None, prepare_attempted_at=None, token_expires_at=None)

    assert run(timeless) == completed("operation")
