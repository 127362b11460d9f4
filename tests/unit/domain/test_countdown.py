from datetime import timedelta

import pytest

from service.domain.countdown import MARKS, mark_to_tell
from tests.support.builders import NOW

DAYS_3, DAY, HOURS_6 = (int(mark.total_seconds()) for mark in MARKS)


@pytest.mark.parametrize(
    ("left", "mark"),
    [
        (timedelta(days=3, seconds=1), None),
        (timedelta(days=3), DAYS_3),
        (timedelta(days=1, seconds=1), DAYS_3),
        (timedelta(days=1), DAY),
        (timedelta(hours=6), HOURS_6),
        (timedelta(seconds=1), HOURS_6),
        (timedelta(0), None),
        (timedelta(days=-1), None),
    ],
)
def test_the_last_mark_that_was_passed_counts(left: timedelta, mark: int | None) -> None:
    assert mark_to_tell(NOW + left, NOW, told=None) == mark


@pytest.mark.parametrize(("told", "mark"), [(None, DAY), (DAYS_3, DAY), (DAY, None), (HOURS_6, None)])
def test_each_is_told_once(told: int | None, mark: int | None) -> None:
    assert mark_to_tell(NOW + timedelta(hours=20), NOW, told=told) == mark


@pytest.mark.parametrize(("lifetime", "mark"), [(2, DAY), (1, None), (30, DAY)])
def test_what_was_near_from_the_beginning_is_no_news(lifetime: int, mark: int | None) -> None:
    ends_at = NOW + timedelta(hours=20)
    assert mark_to_tell(ends_at, NOW, told=None, began_at=ends_at - timedelta(days=lifetime)) == mark
