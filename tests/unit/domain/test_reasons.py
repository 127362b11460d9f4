import pytest

from service.domain.errors import CountersignError, Nonsense, Unreachable
from service.domain.reasons import ADVICE, Reason


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_says_what_to_do(reason: Reason) -> None:
    assert ADVICE[reason].endswith(".")


def test_an_answer_without_sense_leaves_a_write_unknown_and_is_tried_again() -> None:
    fault = Nonsense("an HTML page", reason=Reason.PHALA_UNREACHABLE)
    assert isinstance(fault, Unreachable)
    assert fault.outcome_unknown
    assert fault.retryable


def test_every_fault_says_whether_it_passes() -> None:
    retryable = {cls.__name__ for cls in _all(CountersignError) if cls.retryable}
    assert retryable == {"Unreachable", "Nonsense", "StateUnavailable", "Busy", "NotVisibleYet", "CvmBeingFreed"}


def _all(cls: type[CountersignError]) -> set[type[CountersignError]]:
    return {cls}.union(*(_all(sub) for sub in cls.__subclasses__()))
