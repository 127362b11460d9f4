"""Waiting for a CVM to reach a state."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pydantic

from service.phala.errors import InvalidArgument, PhalaError, WatchEnded
from service.phala.identifiers import CvmIdentifier, cvm_segment, path
from service.phala.models.cvm import CvmState
from service.phala.sse import WatchEvent, read_events
from service.phala.transport import Functions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Unpack

_INTERVALS: Final = range(5, 31)
_TIMEOUTS: Final = range(10, 601)
#: A stream whose server forgets its own timeout is given up this many seconds after it.
_GRACE: Final = 30


class StateWatch(Functions):
    """Server-sent events of one endpoint, with reconnects."""

    def watch_cvm_state(
        self,
        *,
        target: str,
        interval: int = 5,
        timeout: int = 300,
        max_retries: int | None = None,
        retry_delay: int = 5000,
        on_event: Callable[[WatchEvent], object] | None = None,
        stop: threading.Event | None = None,
        **cvm: Unpack[CvmIdentifier],
    ) -> CvmState:
        """``GET /cvms/{cvm}/state?target=...``: wait until the server says that the CVM has reached a state.

        A stream that breaks off, times out or is refused for a passing reason is opened again. One that ends without a
        word counts only if the last state is the target. The server allows five streams per user.

        Args:
            target: the status to wait for, for example ``running``.
            interval: seconds between the server's looks, 5 to 30.
            timeout: seconds that one stream lasts at most, 10 to 600.
            max_retries: how many streams to open in all; None: without end.
            retry_delay: **milliseconds** between two streams.
            on_event: called with every event, and with an ``error`` event for every stream that failed.
            stop: set it from another thread to give up, at the latest when the next bytes arrive.
            **cvm: the CVM.

        Returns:
            The last state seen.

        Raises:
            InvalidArgument: a number out of range.
            WatchEnded: all attempts used up, or stopped.
            PhalaError: of the last attempt; at once if a retry cannot help (401, 403, 404, 422).
        """
        if interval not in _INTERVALS or timeout not in _TIMEOUTS:
            raise InvalidArgument("interval must be 5 to 30 s, timeout 10 to 600 s")
        if retry_delay < 0 or (max_retries or 0) < 0:
            raise InvalidArgument("retry_delay and max_retries must not be negative")
        segments = path("cvms", cvm_segment(cvm), "state")
        query: dict[str, str | int] = {"target": target, "interval": interval, "timeout": timeout}
        watch = _Watch(target, timeout + _GRACE, on_event or _ignore, stop or threading.Event())
        attempts = 0
        while attempts != max_retries and not watch.stopped.is_set():
            if attempts and watch.stopped.wait(retry_delay / 1000):
                break
            attempts += 1
            try:
                with self._transport.stream(segments, query, read_timeout=interval + self._transport.timeout) as chunks:
                    state = watch.follow(read_events(chunks))
            except PhalaError as error:
                if not error.retryable or attempts == max_retries:
                    raise
                watch.notify(WatchEvent(type="error", data={"error": error.message}))
                continue
            if state is not None:
                return state
        raise WatchEnded(f"{target!r} was not reached in {attempts} attempts", attempts=attempts)


@dataclass(frozen=True)
class _Watch:
    target: str
    seconds: float
    notify: Callable[[WatchEvent], object]
    stopped: threading.Event

    def follow(self, events: Iterator[WatchEvent]) -> CvmState | None:
        """The state in which one stream ended, None if another attempt is due."""
        deadline = time.monotonic() + self.seconds
        last: CvmState | None = None
        for event in events:
            self.notify(event)
            if event.type == "state":
                last = self._state(event) or last
            elif event.type == "complete":
                return last
            elif event.type == "timeout":
                return None
            if self.stopped.is_set() or time.monotonic() > deadline:
                return None
        return last if last is not None and last.status == self.target else None

    def _state(self, event: WatchEvent) -> CvmState | None:
        try:
            return CvmState.model_validate(event.data)
        except pydantic.ValidationError:
            self.notify(WatchEvent(type="error", data={"error": "the data of a state event is no state"}))
            return None


def _ignore(_event: WatchEvent) -> None:
    """Nobody listens."""
