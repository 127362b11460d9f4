"""When to try again: back-off of steps, looks at the Safe, and the schedule of webhook deliveries. Pure."""

import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

STEP_BACKOFF_SECONDS = (1, 2, 5, 10, 20, 40, 60)
"""Waits after consecutive failed tries of a step; the last one repeats until the request's deadline."""

SAFE_SERVICE_BACKOFF_SECONDS = (*STEP_BACKOFF_SECONDS, 120, 300, 600)
"""The same where each try costs a request of the Safe Transaction Service's quota."""

BLOCKED_BACKOFF_SECONDS = (30, 60, 120, 300, 600, 1800, 3600)
"""The same where people have to repair something first, who have the request looked at again once they did."""

QUEUE_LOOKS: Final[tuple[tuple[int | None, int], ...]] = (
    (600, 60),
    (3600, 300),
    (6 * 3600, 900),
    (86400, 3600),
    (None, 4 * 3600),
)
"""(up to this age of the last news, look at the Safe's queue so often), in seconds."""

LOOKS_PER_PROPOSAL: Final = 440
"""What looks at the queue may cost for a proposal that is open for a month; ``docs/operations.md`` adds it up."""

OTHER_PER_PROPOSAL: Final = 15
"""What posting, checking before and withdrawing cost for each."""

WEBHOOK_RETRY_SECONDS = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 86400, 86400)
"""Waits after failed delivery attempts; with the first attempt there are 14 over about 4 days."""

_SPREAD: Final = 0.2


def jitter_of(row_id: str) -> float:
    """From 0 to 1: always the same for a row, another for each."""
    return zlib.crc32(row_id.encode()) / 0xFFFFFFFF


def spread(seconds: float, jitter: float) -> float:
    """A wait up to a fifth longer, by a ``jitter`` from 0 to 1, so that what began together does not come together."""
    return seconds * (1.0 + _SPREAD * jitter)


def step_backoff(failed_attempts: int, retry_after: float | None = None) -> float:
    """Seconds to wait after ``failed_attempts`` (1 or more) tries failed in a row.

    ``retry_after`` is what the other side asked for; it is obeyed up to one day.
    """
    return _backoff(STEP_BACKOFF_SECONDS, failed_attempts, retry_after)


def safe_service_backoff(failed_attempts: int, retry_after: float | None = None) -> float:
    """The same after a fault of the Safe Transaction Service, whose quota is small: up to ten minutes."""
    return _backoff(SAFE_SERVICE_BACKOFF_SECONDS, failed_attempts, retry_after)


def blocked_backoff(failed_attempts: int, retry_after: float | None = None) -> float:
    """The same after a fault that only the workspace can repair: up to an hour."""
    return _backoff(BLOCKED_BACKOFF_SECONDS, failed_attempts, retry_after)


def _backoff(waits: tuple[int, ...], failed_attempts: int, retry_after: float | None) -> float:
    wait = float(waits[min(max(failed_attempts, 1), len(waits)) - 1])
    return wait if retry_after is None else max(wait, min(retry_after, 86400.0))


@dataclass(frozen=True, slots=True)
class SafePace:
    """How often a proposal's Safe and its queue are looked at, by the age of the last news about it.

    Looks at the chain cost no quota. Looks at the queue do: each costs one request of the Safe Transaction Service.

    Attributes:
        poll_seconds: between looks while the news is fresh.
        open_proposals: how many share the quota.
        requests_per_month: the quota, 0 for none: then every look is a look at the queue, and none is delayed.
    """

    poll_seconds: float
    open_proposals: int = 1
    requests_per_month: int = 0

    @property
    def stretch(self) -> float:
        """1 while the quota carries the open proposals, above it as many times more as they are too many."""
        if not self.requests_per_month:
            return 1.0
        share = self.requests_per_month / max(1, self.open_proposals)
        return max(1.0, LOOKS_PER_PROPOSAL / max(share - OTHER_PER_PROPOSAL, share / 4))

    def chain_wait(self, age: timedelta) -> float:
        """Seconds until the next look at the chain."""
        if not self.requests_per_month or age < timedelta(hours=1):
            return self.poll_seconds
        return self.poll_seconds * (2 if age < timedelta(days=1) else 5)

    def queue_wait(self, age: timedelta) -> float:
        """Seconds until the next look at the queue."""
        if not self.requests_per_month:
            return self.poll_seconds
        wait = next(wait for until, wait in QUEUE_LOOKS if until is None or age.total_seconds() < until)
        return max(self.poll_seconds, wait * self.stretch)

    def delegate_due(self, checked_at: datetime | None, now: datetime) -> bool:
        """Whether to ask again if the service's key is still a delegate."""
        return checked_at is None or now - checked_at >= timedelta(days=1) * self.stretch


def webhook_retry_after(failed_attempts: int, retry_after: float | None = None, *, jitter: float = 0.0) -> float | None:
    """Seconds until the next delivery attempt, or ``None`` when the schedule has ended.

    Args:
        failed_attempts: how many attempts failed so far, 1 or more.
        retry_after: the receiver's ``Retry-After`` in seconds; clamped to one day.
        jitter: 0..1, spreads retries by up to 20 % so that a recovering receiver is not flooded.
    """
    if failed_attempts > len(WEBHOOK_RETRY_SECONDS):
        return None
    wait = spread(WEBHOOK_RETRY_SECONDS[failed_attempts - 1], jitter)
    if retry_after is not None:
        wait = max(wait, min(retry_after, 86400.0))
    return wait
