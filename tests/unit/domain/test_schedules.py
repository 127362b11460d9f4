import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.schedules import STEP_BACKOFF_SECONDS, WEBHOOK_RETRY_SECONDS, step_backoff, webhook_retry_after

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
