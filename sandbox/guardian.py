"""A second line of defence against orphans: stops a parent's process groups once the parent is gone, however it went.

The parent holds the writing end of a pipe; the guardian, a small process of its own session, reads from it which
groups there are. When the parent dies, `kill -9` included, the pipe ends and the guardian stops what is left. Linux'
parent-death signal would do less: it is lost when the child changes its user, it is tied to the thread that started
the child, it leaves grandchildren alone, and macOS has none.
"""

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import ClassVar, Self, TextIO

_GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.05


class Guardian:
    """The parent's handle on its guardian; use `of_this_process()`."""

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _instance: ClassVar["Guardian | None"] = None

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and file
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd="/",
            text=True,
            start_new_session=True,
        )
        atexit.register(self._close)

    @classmethod
    def of_this_process(cls) -> "Guardian":
        """Return the guardian of this process, started on first use; a fork gets one of its own."""
        with cls._lock:
            if cls._instance is None or cls._instance._owner != os.getpid():  # noqa: SLF001 - its own class
                cls._instance = cls()
            return cls._instance

    def watch(self, group: int, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        """Have a process group stopped, first by `stop_signal`, should this process die before `forget`."""
        self._tell(f"watch {group} {int(stop_signal)}")

    def forget(self, group: int) -> None:
        """Leave a process group alone from now on: it has ended, and its number may come back as somebody else's."""
        with suppress(BrokenPipeError):  # a guardian that died watches nothing anyway
            self._tell(f"forget {group} 0")

    def _tell(self, line: str) -> None:
        pipe = self._process.stdin
        if pipe is None:
            raise RuntimeError("the guardian has no pipe")
        with self._lock:
            pipe.write(line + "\n")
            pipe.flush()

    def _close(self) -> None:
        if self._owner == os.getpid() and self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()


class _Watched:
    """The guardian's side: the groups alive, in the order they were started."""

    def __init__(self) -> None:
        self._groups: dict[int, int] = {}

    @classmethod
    def read(cls, orders: TextIO) -> Self:
        """Follow the parent's orders until it is gone."""
        watched = cls()
        for order in orders:
            verb, group, number = order.split()
            if verb == "watch":
                watched._groups[int(group)] = int(number)
            else:
                watched._groups.pop(int(group), None)
        return watched

    def stop(self) -> None:
        """Ask every group to end, the youngest first, and kill those that do not."""
        groups = list(reversed(self._groups))
        for group in groups:
            _signal(group, self._groups[group])
            _signal(group, signal.SIGCONT)  # a paused process hears nothing else
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline and any(_signal(group, 0) for group in groups):
            time.sleep(_POLL_SECONDS)  # children of another process cannot be waited for, only looked at
        for group in groups:
            _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Signal a process group; return whether it exists."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    _Watched.read(sys.stdin).stop()
