"""What attempts to deliver webhooks mean for the delivery, for the endpoint, and for what else is due there. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from service.domain.schedules import step_backoff, webhook_retry_after
from service.domain.webhooks import OURS, DisabledReason, Fault

GONE: Final = 410
"""The status by which a receiver says that nothing must be sent to it any more."""
OUTAGE_SECONDS: Final = 60
"""A receiver that failed for so long was down; less may have been about one event."""
LONGEST_HOLD_SECONDS: Final = 60.0
"""How long at most a whole endpoint waits because of one delivery; the delivery may wait longer."""


def is_success(status: int | None) -> bool:
    """Whether an HTTP status says that the event was taken; ``None`` is no answer."""
    return status is not None and 200 <= status < 300  # noqa: PLR2004 - HTTP's own numbers


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one try brought. ``status`` is ``None`` when no answer came; ``detail`` is clipped and printable."""

    at: datetime
    duration_ms: int
    status: int | None
    detail: str | None
    fault: Fault | None = None

    @property
    def succeeded(self) -> bool:
        """Only 2xx counts."""
        return is_success(self.status)

    @property
    def said(self) -> str:
        """What came back, in one line."""
        if self.status is None:
            return self.detail or "no answer"
        return f"HTTP {self.status}: {self.detail}" if self.detail else f"HTTP {self.status}"


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing more is to be sent to the endpoint for so many seconds; ``unanswered`` says that nobody was there."""

    seconds: float
    unanswered: bool = False


def retry_after(attempt: Attempt, failed_before: int, asked: float | None, *, jitter: float) -> float | None:
    """Seconds until a delivery is tried again after a failed attempt, ``None`` for never.

    Args:
        attempt: the failed one.
        failed_before: attempts of the delivery that failed before it.
        asked: the receiver's ``Retry-After``, in seconds.
        jitter: from 0 to 1.
    """
    return None if attempt.status == GONE else webhook_retry_after(failed_before + 1, asked, jitter=jitter)


def pause_after(attempt: Attempt, asked: float | None, unanswered_before: int) -> Pause | None:
    """How a failed attempt holds up what else is due at the endpoint; ``None`` when it does not.

    Args:
        attempt: the failed one.
        asked: the receiver's ``Retry-After``, in seconds.
        unanswered_before: how often in a row nobody answered before.
    """
    if attempt.status == GONE:
        return Pause(0.0)
    if attempt.status is None:
        return Pause(step_backoff(unanswered_before + 1), unanswered=True)
    return Pause(min(asked, LONGEST_HOLD_SECONDS)) if asked else None


@dataclass(frozen=True, slots=True)
class Standing:
    """How an endpoint does: since when it fails without a success, and when the last success was."""

    failing_since: datetime | None
    last_success_at: datetime | None


@dataclass(frozen=True, slots=True)
class Followed:
    """What attempts made of a standing.

    Attributes:
        is_back: the receiver had been down, and is not any more.
        disabled: why nothing is to be sent any more, if so.
    """

    standing: Standing
    is_back: bool
    disabled: DisabledReason | None


def follow(standing: Standing, attempts: Sequence[Attempt], disable_seconds: float) -> Followed:
    """Follow an endpoint through attempts, at least one, in the order in which they were made.

    A receiver that says it is gone is disabled, and so is one that failed for ``disable_seconds`` without a success.
    """
    is_back = False
    for attempt in attempts:
        since = standing.failing_since
        if attempt.succeeded:
            is_back = is_back or (since is not None and _seconds(since, attempt) >= OUTAGE_SECONDS)
            standing = Standing(None, attempt.at)
        elif attempt.fault not in OURS and since is None:
            standing = replace(standing, failing_since=attempt.at)
    return Followed(standing, is_back, _why_disabled(standing, attempts[-1], disable_seconds))


def _why_disabled(standing: Standing, last: Attempt, disable_seconds: float) -> DisabledReason | None:
    if last.status == GONE:
        return DisabledReason.RECEIVER_GONE
    since = standing.failing_since
    if since is not None and not last.succeeded and _seconds(since, last) >= disable_seconds:
        return DisabledReason.KEEPS_FAILING
    return None


def _seconds(since: datetime, attempt: Attempt) -> float:
    return (attempt.at - since).total_seconds()
