"""Which of a chain's endpoints to ask: one that fails rests for growing pauses, one that stalls is not waited for."""

import threading
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from service.adapters.bulkhead import Pause
from service.domain.errors import Unreachable

REST_SECONDS: Final = 1.0
"""After the first fault; twice as long after each further one in a row."""
LONGEST_REST_SECONDS: Final = 60.0
LATE_SECONDS: Final = 0.25
"""After these, an answer that nobody waits for any longer counts as a fault."""
_DOUBLINGS: Final = 6


class Standing(IntEnum):
    """How an endpoint stands; the lower, the sooner it is asked."""

    READY = 0
    """The last call was answered."""
    DUE = 1
    """It failed and has rested: one call finds out."""
    RESTING = 2
    """It failed just now: asked only where the others are too few."""
    CLOSED = 3
    """It asked for a pause, or the one call that it gets in its state is under way."""


class Health:
    """What the last calls to an endpoint say about the next one.

    Args:
        changed: notified after each call.
        monotonic: the time.
    """

    def __init__(self, changed: threading.Condition, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._now = monotonic
        self._pause = Pause(monotonic)
        self._failures = 0
        self._rested_at = 0.0
        self._inside = 0
        self._entered_at = 0.0
        self._left_behind = 0
        self._left_at = 0.0

    @property
    def ready(self) -> bool:
        """Whether all was well the last time; may be out of date at once, ``enter`` knows."""
        return not self._failures and not self._left_behind and not self._pause.left()

    def standing(self) -> tuple[Standing, float]:
        """How it stands, and when its rest is over: sorts endpoints so that the first is the one to ask."""
        with self._lock:
            if self._is_closed():
                return Standing.CLOSED, self._rested_at
            if not self._failures:
                return Standing.READY, 0.0
            return (Standing.DUE if self._now() >= self._rested_at else Standing.RESTING), self._rested_at

    def waited(self) -> float:
        """Seconds since the last call began."""
        return self._now() - self._entered_at

    def pause(self) -> float:
        """Seconds for which it asked not to be called."""
        return self._pause.left()

    def enter(self) -> bool:
        """Begin a call; ``False`` when there must be none now."""
        with self._lock:
            if self._is_closed():
                return False
            self._inside += 1
            self._entered_at = self._now()
            return True

    def leave(self, fault: Unreachable | None) -> None:
        """End a call: with a fault of the endpoint, or an answer. One that comes far too late is as good as none."""
        with self._lock:
            self._inside -= 1
            waited_for = self._failures > 0 or self._left_behind > 0
            late = self._left_behind > 0 and self._now() - self._left_at > LATE_SECONDS
            self._left_behind = max(0, min(self._left_behind - 1, self._inside))
            if fault is not None or late:
                self._fail()
            else:
                self._failures = 0
            if fault is not None and fault.retry_after is not None:
                self._pause.ask_for(fault.retry_after)
        if waited_for:
            with self._changed:
                self._changed.notify_all()

    def leave_behind(self) -> None:
        """A call is not waited for any longer; no other is made before it ends."""
        with self._lock:
            if not self._left_behind:
                self._left_at = self._now()
            self._left_behind = min(self._left_behind + 1, self._inside)

    def _is_closed(self) -> bool:
        alone = self._failures > 0 or self._left_behind > 0
        return (alone and self._inside > 0) or self._pause.left() > 0

    def _fail(self) -> None:
        now = self._now()
        if not self._failures or now >= self._rested_at:  # several calls that fail together are one failure
            self._failures += 1
        rest = REST_SECONDS * 2 ** min(self._failures - 1, _DOUBLINGS)
        self._rested_at = now + min(LONGEST_REST_SECONDS, rest)
