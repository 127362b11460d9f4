"""A call that is on its way for very long: who made it is frozen, and it arrives when it is let go."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.chaos.points import Board, Subject, named
from tests.chaos.site import WORKERS, Site
from tests.chaos.wire import WireEvent

CAUGHT_SECONDS: Final = 60.0


class HeldCall:
    """The first call of a kind about a request.

    Attributes:
        worker: who made it, once it was caught.
    """

    def __init__(self, site: Site, subject: Subject, dependency: str, begins: str) -> None:
        """Take whose call it is: to whom, and how its label begins."""
        self.worker: str | None = None
        self._site = site
        self._subject = subject
        self._wanted = (dependency, begins)
        self._caught = threading.Event()
        self._free = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, event: WireEvent) -> bool:
        """Hold it, if it is the one, until it is let go; never end a connection."""
        dependency, begins = self._wanted
        if event.moment != "out" or event.dependency != dependency or not event.label.startswith(begins):
            return False
        with self._lock:
            if self._caught.is_set() or named(self._subject, event) is None:
                return False
            worker = self._site.who_has(event.client_port)
            if worker not in WORKERS:
                return False
            self.worker = worker
            self._site.process(worker).pause()
            self._caught.set()
        self._free.wait()
        return False

    def wait(self) -> None:
        """Until it was caught.

        Raises:
            AssertionError: it never was.
        """
        assert self._caught.wait(CAUGHT_SECONDS), "the call was never made"

    def let_go(self) -> None:
        """It arrives now, and the worker that made it wakes."""
        self._free.set()
        if self.worker is not None:
            self._site.process(self.worker).resume()


@contextmanager
def held(site: Site, board: Board, subject: Subject, dependency: str, begins: str) -> Iterator[HeldCall]:
    """Hold the first such call while the block lasts, at most."""
    call = HeldCall(site, subject, dependency, begins)
    board.add(call)
    try:
        yield call
    finally:
        call.let_go()
        board.remove(call)
