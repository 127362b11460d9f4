"""The token bucket: never more than the quota, filled evenly."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.token_bucket import Quota


@given(st.integers(1, 10_000), st.lists(st.floats(0, 5), max_size=50))
def test_no_more_is_taken_than_the_quota_and_what_came_since(per_minute: int, waits: list[float]):
    quota = Quota(per_minute)
    tokens, taken = float(per_minute), 0
    for wait in waits:
        some, tokens = quota.draw(tokens, wait)
        taken += some
        assert tokens >= 0
    assert taken <= per_minute + math.ceil(sum(waits) * quota.per_second)


def test_a_batch_is_a_twentieth_of_the_quota_and_at_least_one():
    assert (Quota(6000).batch, Quota(60).batch, Quota(5).batch) == (300, 3, 1)


def test_it_fills_evenly_up_to_the_quota():
    quota = Quota(60)
    assert quota.refilled(10, 5) == 15
    assert quota.refilled(59, 5) == 60
    assert quota.refilled(10, -5) == 10  # a clock that went back takes nothing


def test_a_part_of_a_token_is_none():
    assert Quota(60).draw(0.5, 0.25) == (0, 0.75)
    assert Quota(60).draw(0.5, 0.5) == (1, 0.0)


def test_how_long_to_wait():
    assert Quota(60).seconds_until_one(0.25) == pytest.approx(0.75)
    assert Quota(60).seconds_until_one(3) == 0
    assert Quota(60).seconds_until_full(57.5) == 3
