"""Waiting for what only shows when it is looked at: other processes, their ports, chains."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(look: Callable[[], T], seconds: float, *, every: float = 0.02) -> T:
    """Look until there is something to see, at least once and for at most so many seconds; what was seen last.

    Args:
        look: answers something true once there is; may raise to end the wait.
        seconds: after which the last answer is returned, whatever it is.
        every: seconds between two looks.
    """
    deadline = time.monotonic() + seconds
    while not (seen := look()) and time.monotonic() < deadline:
        time.sleep(every)  # the one place that polls: what it looks at tells nobody when it changes
    return seen
