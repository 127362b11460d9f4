from dataclasses import replace
from datetime import timedelta

import pytest

from service.domain.gates import HELD_SECONDS, NEEDS_A_PERSON, CommitPolicy, Freeze, Gates, hold_of
from service.domain.reasons import Reason
from tests.support.builders import NOW

FREEZE = Freeze(NOW, "key_1", "an incident")
HOLD = CommitPolicy.HOLD


def reason(gates: Gates, *, attempted: bool = False) -> Reason | None:
    hold = hold_of(gates, NOW, attempted=attempted)
    return None if hold is None else hold.reason


def test_nothing_holds_by_default() -> None:
    assert hold_of(Gates(), NOW, attempted=False) is None


@pytest.mark.parametrize(
    ("gates", "expected"),
    [
        (Gates(freeze=FREEZE), Reason.COMMITS_FROZEN),
        (Gates(failed="cr_other"), Reason.HELD_AFTER_FAILURE),
        (Gates(policy=HOLD), Reason.HELD_FOR_RELEASE),
        (Gates(policy=HOLD, released_at=NOW), None),
        (Gates(not_before=NOW + timedelta(seconds=1)), Reason.WAITING_FOR_TIME),
        (Gates(not_before=NOW), None),
        (Gates(in_flight=("cr_other",)), Reason.WAITING_FOR_OTHER_COMMITS),
        (Gates(in_flight=("cr_other",), parallel=2), None),
        (Gates(in_flight=("cr_1", "cr_2"), parallel=2), Reason.WAITING_FOR_OTHER_COMMITS),
    ],
)
def test_each_gate_holds_and_opens(gates: Gates, expected: Reason | None) -> None:
    assert reason(gates) is expected


def test_of_several_the_one_that_a_person_opens_last_is_shown() -> None:
    gates = Gates(HOLD, NOW + timedelta(days=1), None, FREEZE, "cr_failed", ("cr_other",))
    shown = [reason(gates)]
    for opened in (
        {"freeze": None},
        {"failed": None},
        {"released_at": NOW},
        {"not_before": None},
        {"in_flight": ()},
    ):
        gates = replace(gates, **opened)
        shown.append(reason(gates))
    assert shown == [
        Reason.COMMITS_FROZEN,
        Reason.HELD_AFTER_FAILURE,
        Reason.HELD_FOR_RELEASE,
        Reason.WAITING_FOR_TIME,
        Reason.WAITING_FOR_OTHER_COMMITS,
        None,
    ]


def test_after_an_attempt_only_the_freeze_holds() -> None:
    gates = Gates(HOLD, NOW + timedelta(days=1), None, FREEZE, "cr_failed", ("cr_other",))
    assert reason(gates, attempted=True) is Reason.COMMITS_FROZEN
    assert reason(replace(gates, freeze=None), attempted=True) is None


def test_it_says_who_when_and_why() -> None:
    frozen = hold_of(Gates(freeze=FREEZE), NOW, attempted=False)
    assert frozen is not None
    assert frozen.detail == f"frozen by key_1 at {NOW.isoformat()}: an incident"
    queued = hold_of(Gates(in_flight=("cr_a", "cr_b")), NOW, attempted=False)
    assert queued is not None
    assert "cr_a, cr_b" in queued.detail
    assert queued.reason not in NEEDS_A_PERSON


@pytest.mark.parametrize(("left", "seconds"), [(5, 5.0), (3600, HELD_SECONDS)])
def test_a_time_is_met_to_the_second_without_a_long_countdown(left: float, seconds: float) -> None:
    hold = hold_of(Gates(not_before=NOW + timedelta(seconds=left)), NOW, attempted=False)
    assert hold is not None
    assert hold.seconds == seconds
