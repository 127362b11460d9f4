from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.schedules import (
    LOOKS_PER_PROPOSAL,
    OTHER_PER_PROPOSAL,
    QUEUE_LOOKS,
    STEP_BACKOFF_SECONDS,
    WEBHOOK_RETRY_SECONDS,
    SafePace,
    jitter_of,
    safe_service_backoff,
    spread,
    step_backoff,
    webhook_retry_after,
)

asked_for = st.none() | st.floats(0, 10**7)


class TestSteps:
    def test_the_documented_waits(self) -> None:
        assert [step_backoff(tries) for tries in range(1, 10)] == [1, 2, 5, 10, 20, 40, 60, 60, 60]

    def test_what_the_other_side_asks_for_is_obeyed_up_to_a_day(self) -> None:
        assert step_backoff(1, 30.0) == 30.0
        assert step_backoff(7, 30.0) == 60.0
        assert step_backoff(1, 7200.0) == 7200.0
        assert step_backoff(1, 10.0**6) == 86400.0

    def test_no_count_is_out_of_range(self) -> None:
        assert step_backoff(0) == 1.0
        assert step_backoff(10**9) == 60.0

    @given(st.integers(1, 1000), asked_for)
    def test_waits_are_bounded_and_never_shrink(self, tries: int, retry_after: float | None) -> None:
        wait = step_backoff(tries, retry_after)
        assert STEP_BACKOFF_SECONDS[0] <= wait <= 86400
        assert step_backoff(tries + 1, retry_after) >= wait


class TestTheSafe:
    FREE = 5000

    def test_faults_of_the_service_are_spared_more_and_more(self) -> None:
        assert [safe_service_backoff(tries) for tries in (1, 7, 8, 9, 10, 99)] == [1, 60, 120, 300, 600, 600]
        assert safe_service_backoff(1, 7200.0) == 7200.0

    def test_the_documented_arithmetic(self) -> None:
        """``docs/operations.md`` shows it."""
        begin, looks = 0, []
        for until, wait in QUEUE_LOOKS[:-1]:
            assert until is not None
            looks.append(-(-(until - begin) // wait))
            begin = until
        assert looks == [10, 10, 20, 18]
        quiet = 86400 // QUEUE_LOOKS[-1][1]
        assert 4 * sum(looks) + 26 * quiet + 30 + 22 == LOOKS_PER_PROPOSAL
        assert 10 * (LOOKS_PER_PROPOSAL + OTHER_PER_PROPOSAL) == 4550 <= self.FREE

    @pytest.mark.parametrize(
        ("count", "stretch"), [(0, 1.0), (10, 1.0), (20, 1.87), (100, 12.57), (250, 88.0), (5000, 1760.0)]
    )
    def test_more_than_the_quota_carries_stretches_the_waits(self, count: int, stretch: float) -> None:
        pace = SafePace(60.0, count, self.FREE)
        assert pace.stretch == pytest.approx(stretch, abs=0.01)
        assert pace.queue_wait(timedelta(days=5)) == pytest.approx(pace.stretch * 4 * 3600)
        now = datetime(2026, 7, 1, tzinfo=UTC)
        for hours, due in ((23.9, False), (24.1, True)):
            assert pace.delegate_due(now - timedelta(hours=hours) * pace.stretch, now) is due

    @pytest.mark.parametrize("age", [timedelta(0), timedelta(hours=2), timedelta(days=9)])
    def test_without_a_quota_every_look_is_one_at_the_queue(self, age: timedelta) -> None:
        pace = SafePace(5.0, 10_000)
        assert (pace.stretch, pace.queue_wait(age), pace.chain_wait(age)) == (1.0, 5.0, 5.0)

    def test_the_chain_is_looked_at_within_minutes_at_any_time(self) -> None:
        pace = SafePace(60.0, 10_000, self.FREE)
        assert [pace.chain_wait(timedelta(hours=age)) for age in (0, 0.9, 1, 23, 24, 9999)] == [
            60,
            60,
            120,
            120,
            300,
            300,
        ]


class TestJitter:
    def test_it_is_always_the_same_for_a_row_and_lies_evenly_over_rows(self) -> None:
        jitters = [jitter_of(f"prop_{number:032x}") for number in range(1000)]
        assert jitters == [jitter_of(f"prop_{number:032x}") for number in range(1000)]
        tenths = Counter(int(jitter * 10) for jitter in jitters)
        assert set(tenths) == set(range(10))
        assert max(tenths.values()) < 2 * min(tenths.values())

    def test_a_wait_is_up_to_a_fifth_longer(self) -> None:
        assert [spread(60.0, jitter) for jitter in (0.0, 0.5, 1.0)] == [60.0, 66.0, 72.0]


class TestWebhooks:
    def test_fourteen_attempts_over_about_four_days(self) -> None:
        waits = [webhook_retry_after(failed) for failed in range(1, 15)]
        assert waits[:-1] == list(WEBHOOK_RETRY_SECONDS)
        assert waits[-1] is None
        assert 4 <= sum(WEBHOOK_RETRY_SECONDS) / 86400 < 5

    @pytest.mark.parametrize(("asked", "wait"), [(1.0, 5.0), (60.0, 60.0), (10**6, 86400.0)])
    def test_retry_after_is_clamped_to_a_day(self, asked: float, wait: float) -> None:
        assert webhook_retry_after(1, asked) == wait

    def test_retry_after_does_not_lengthen_the_schedule(self) -> None:
        assert webhook_retry_after(14, 60.0) is None

    @given(st.integers(1, 13), st.floats(0, 1))
    def test_jitter_only_adds_up_to_a_fifth(self, failed: int, jitter: float) -> None:
        base = WEBHOOK_RETRY_SECONDS[failed - 1]
        wait = webhook_retry_after(failed, jitter=jitter)
        assert wait is not None
        assert base <= wait <= base * 1.2 + 1e-6
