"""Clients that wait for a change: bounded, so that they cannot use up the threads that serve the others."""

import threading
from typing import Final

from service.api.problems import TOO_MANY_WAITING, Problem
from service.store.changes import StateChanges
from service.telemetry import metrics

MOST_WAITING: Final = 60
_RETRY_AFTER: Final = {"Retry-After": "5"}


class WaitingRoom:
    """Seats for clients that wait."""

    def __init__(self, changes: StateChanges, *, seats: int = MOST_WAITING) -> None:
        """Take what wakes them, and how many may wait at once."""
        self.changes = changes
        self._seats = threading.Semaphore(seats)

    def wait(self, request_id: str, *, from_state: str, seconds: float) -> None:
        """Wait until the change request left ``from_state``, at most ``seconds``.

        Raises:
            Problem: ``too_many_waiting``.
        """
        if not self._seats.acquire(blocking=False):
            raise Problem(TOO_MANY_WAITING, "Try again after 5 seconds, or poll without wait.", headers=_RETRY_AFTER)
        try:
            with metrics.WAITING.track_inprogress():
                self.changes.wait(request_id, from_state=from_state, seconds=seconds)
        finally:
            self._seats.release()
