"""When to try again: back-off of steps and the documented schedule of webhook deliveries. Pure."""

STEP_BACKOFF_SECONDS = (1, 2, 5, 10, 20, 40, 60)
"""Waits after consecutive failed tries of a step; the last one repeats until the request's deadline."""

WEBHOOK_RETRY_SECONDS = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 86400, 86400)
"""Waits after failed delivery attempts; with the first attempt there are 14 over about 4 days."""


def step_backoff(failed_attempts: int, retry_after: float | None = None) -> float:
    """Seconds to wait after ``failed_attempts`` (1 or more) tries failed in a row.

    ``retry_after`` is what the other side asked for; it is obeyed up to one hour.
    """
    index = min(max(failed_attempts, 1), len(STEP_BACKOFF_SECONDS)) - 1
    wait = float(STEP_BACKOFF_SECONDS[index])
    if retry_after is not None:
        wait = max(wait, min(retry_after, 3600.0))
    return wait


def webhook_retry_after(failed_attempts: int, retry_after: float | None = None, *, jitter: float = 0.0) -> float | None:
    """Seconds until the next delivery attempt, or ``None`` when the schedule has ended.

    Args:
        failed_attempts: how many attempts failed so far, 1 or more.
        retry_after: the receiver's ``Retry-After`` in seconds; clamped to one day.
        jitter: 0..1, spreads retries by up to 20 % so that a recovering receiver is not flooded.
    """
    if failed_attempts > len(WEBHOOK_RETRY_SECONDS):
        return None
    wait = WEBHOOK_RETRY_SECONDS[failed_attempts - 1] * (1.0 + 0.2 * jitter)
    if retry_after is not None:
        wait = max(wait, min(retry_after, 86400.0))
    return wait
