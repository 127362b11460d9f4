"""Background threads that do what is due and sleep until the next thing is."""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

_LONGEST_SLEEP = 1.0
_AFTER_A_FAULT = 0.5


class Loop:
    """Calls `work` whenever it is rung and when the seconds have passed that `work` last answered."""

    def __init__(self, name: str, work: Callable[[], float]) -> None:
        self._work = work
        self._bell = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def ring(self) -> None:
        """Something may be due now."""
        self._bell.set()

    def stop(self) -> None:
        """Let the current piece of work finish, then end the thread."""
        self._stopping = True
        self._bell.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._bell.clear()
            try:
                pause = min(self._work(), _LONGEST_SLEEP)
            except Exception:
                # Whatever happens in one round must not end the world; the state is unchanged and due again.
                logger.exception("%s: will try again", self._thread.name)
                pause = _AFTER_A_FAULT
            self._bell.wait(pause)
