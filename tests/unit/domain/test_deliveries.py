from datetime import UTC, datetime, timedelta

import pytest

from service.domain.deliveries import (
    LONGEST_HOLD_SECONDS,
    OUTAGE_SECONDS,
    Attempt,
    Pause,
    Standing,
    follow,
    pause_after,
    retry_after,
)
from service.domain.webhooks import DisabledReason, Fault

NOW = datetime(2026, 7, 1, tzinfo=UTC)
DAYS = 5 * 86400.0
NEVER_FAILED = Standing(None, None)


def attempt(status: int | None, seconds: float = 0.0, fault: Fault | None = None) -> Attempt:
    return Attempt(NOW + timedelta(seconds=seconds), 5, status, None, fault)


def failing_for(seconds: float) -> Standing:
    return Standing(NOW - timedelta(seconds=seconds), None)


@pytest.mark.parametrize("status", [200, 204, 299])
def test_only_2xx_is_a_success(status: int):
    followed = follow(failing_for(1), [attempt(status)], DAYS)
    assert followed.standing == Standing(None, NOW)
    assert attempt(status).succeeded


@pytest.mark.parametrize("status", [None, 100, 199, 300, 404, 503])
def test_a_failure_counts_from_the_first_one(status: int | None):
    followed = follow(NEVER_FAILED, [attempt(status), attempt(status, 9)], DAYS)
    assert followed.standing == Standing(NOW, None)
    assert not attempt(status).succeeded


@pytest.mark.parametrize("fault", [Fault.SECRET_UNREADABLE, Fault.INTERNAL_ERROR])
def test_faults_of_ours_say_nothing_about_the_receiver(fault: Fault):
    assert follow(NEVER_FAILED, [attempt(None, fault=fault)], DAYS).standing == NEVER_FAILED


@pytest.mark.parametrize(("seconds", "is_back"), [(OUTAGE_SECONDS - 1, False), (OUTAGE_SECONDS, True)])
def test_a_receiver_is_back_only_after_an_outage(seconds: float, is_back: bool):
    assert follow(failing_for(seconds), [attempt(204)], DAYS).is_back == is_back
    assert follow(failing_for(seconds), [attempt(204), attempt(503, 1)], DAYS).is_back == is_back


def test_what_is_gone_or_fails_for_days_is_disabled():
    assert follow(NEVER_FAILED, [attempt(410)], DAYS).disabled is DisabledReason.RECEIVER_GONE
    assert follow(failing_for(DAYS), [attempt(503)], DAYS).disabled is DisabledReason.KEEPS_FAILING
    assert follow(failing_for(DAYS - 1), [attempt(503)], DAYS).disabled is None
    assert follow(failing_for(DAYS), [attempt(204)], DAYS).disabled is None
    assert follow(failing_for(DAYS), [attempt(204), attempt(503, 1)], DAYS).disabled is None


def test_what_else_is_due_waits_where_nobody_answers_or_the_receiver_asks_for_it():
    assert pause_after(attempt(503), None, 0) is None
    assert pause_after(attempt(503), 7.0, 0) == Pause(7.0)
    assert pause_after(attempt(429), 3600.0, 0) == Pause(LONGEST_HOLD_SECONDS)
    assert pause_after(attempt(410), 7.0, 0) == Pause(0.0)
    first, later = (pause_after(attempt(None), None, before) for before in (0, 3))
    assert first is not None
    assert later is not None
    assert first.unanswered
    assert first.seconds < later.seconds


def test_nothing_is_tried_again_at_a_receiver_that_is_gone():
    assert retry_after(attempt(410), 0, None, jitter=0.5) is None
    assert (retry_after(attempt(503), 0, None, jitter=0.5) or 0) > 0


def test_what_was_said_is_one_line():
    said = [
        Attempt(NOW, 5, status, detail).said for status, detail in ((None, None), (None, "x"), (503, None), (503, "x"))
    ]
    assert said == ["no answer", "x", "HTTP 503", "HTTP 503: x"]
