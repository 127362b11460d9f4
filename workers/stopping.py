"""How a process ends that was told to: what it has begun may go on for a while, then its rows are given back."""

import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Deadline:
    """Ends the process at the latest so many seconds after ``begin``; calls that hang cannot keep it.

    Args:
        seconds: for what has begun.
        give_back: what is done just before, so that others go on at once.
    """

    def __init__(self, seconds: float, give_back: Callable[[], object] = lambda: None) -> None:
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._give_back = give_back
        self._begun = False

    def begin(self) -> None:
        """Count from now on; once more changes nothing. Harmless in a process that ends by itself before."""
        if not self._begun:
            self._begun = True
            self._timer.start()

    def _end(self) -> None:
        try:
            self._give_back()
        except Exception:  # the leases run out by themselves then
            log.exception("what was begun could not be given back")
        log.warning("ending in the middle of calls that take too long; what they were for is looked at again")
        logging.shutdown()
        os._exit(0)
