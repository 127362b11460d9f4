"""So that one server that stalls, or wants to be left alone, takes no more than its share of the process's threads."""

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Final

from service.domain.errors import Unreachable
from service.domain.reasons import Reason

PATIENCE_SECONDS: Final = 0.5
_AGAIN_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 600.0


class Bulkhead:
    """At most so many calls to one service at once. Who comes above that waits a moment, then is told to come back.

    The moment is counted from when a call last began or ended: where nothing has moved for so long, nobody waits.

    A context: the place is held while its block runs.

    Args:
        who: how people call the service.
        reason: public code of its faults.
        calls: how many at once, at least one.
        patience: seconds to wait for a place.
    """

    def __init__(self, who: str, reason: Reason, calls: int, patience: float = PATIENCE_SECONDS) -> None:
        self._who = who
        self._reason = reason
        self._calls = calls
        self._patience = patience
        self._places: SimpleQueue[None] = SimpleQueue()  # a semaphore in C: this is on every call's way
        for _ in range(calls):
            self._places.put(None)
        self._moved = 0.0

    def __enter__(self) -> None:
        """Take a place.

        Raises:
            Unreachable: all are taken; nothing was sent.
        """
        try:
            self._places.get_nowait()
        except Empty:
            self._wait(self._patience - (time.monotonic() - self._moved))
        self._moved = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        self._moved = time.monotonic()
        self._places.put(None)

    def _wait(self, seconds: float) -> None:
        try:
            self._places.get(timeout=max(0.0, seconds))
        except Empty:
            detail = f"{self._who}: {self._calls} calls are under way already, more would hold up other work"
            raise Unreachable(detail, reason=self._reason, retry_after=_AGAIN_SECONDS) from None


class Shares:
    """A bulkhead for each of those that share one service, so that none of them takes every place.

    Args:
        who: how people call the service.
        reason: public code of its faults.
        calls: how many at once for each, at least one.
    """

    def __init__(self, who: str, reason: Reason, calls: int) -> None:
        self._who = who
        self._reason = reason
        self._calls = calls
        self._of: dict[str, Bulkhead] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> Bulkhead:
        """The bulkhead of one of them."""
        with self._lock:
            if name not in self._of:
                self._of[name] = Bulkhead(self._who, self._reason, self._calls)
            return self._of[name]


class Pause:
    """How long a server asked to be left alone (``Retry-After``).

    Args:
        monotonic: the time.
        longest: seconds that it gets at most.
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, longest: float = _LONGEST_PAUSE_SECONDS
    ) -> None:
        self._now = monotonic
        self._longest = longest
        self._over = 0.0

    def ask_for(self, seconds: float) -> None:
        """It asked for so many seconds from now."""
        self._over = max(self._over, self._now() + min(seconds, self._longest))

    def left(self) -> float:
        """Seconds left, 0 when it may be called."""
        return max(0.0, self._over - self._now()) if self._over else 0.0
