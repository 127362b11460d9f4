"""How many blocks of logs an endpoint gives at once: found out by being refused, remembered, tried again slowly."""

import threading
from typing import Final

_FIRST_TRIAL: Final = 16
"""Full ranges in a row after which twice as many blocks are tried."""
_LAST_TRIAL: Final = 4096
"""The same for an endpoint that refused each time: one call in four thousand is lost on it."""


class LogRanges:
    """The limit of one endpoint. Without a refusal there is none.

    Limits by number of blocks stay, limits by number of logs come and go with what is in the blocks: so after some
    full ranges twice as many blocks are tried, and each trial that is refused makes the next one rarer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limit: int | None = None
        self._good: int | None = None
        self._taken = 0
        self._trial = _FIRST_TRIAL

    def size(self, wanted: int) -> int:
        """How many of ``wanted`` blocks to ask for."""
        limit = self._limit
        return wanted if limit is None else min(wanted, limit)

    def refused(self, size: int, named: int | None) -> None:
        """So many blocks, more than one, were too many. ``named`` is how many the endpoint said it takes."""
        with self._lock:
            if self._limit is not None and size > self._limit:
                return  # another call learned it meanwhile
            if self._good is not None and self._good < size:
                limit, self._trial = self._good, min(_LAST_TRIAL, 2 * self._trial)
            else:
                limit = named if named is not None and named < size else size // 2
            self._limit, self._good, self._taken = max(1, limit), None, 0

    def took(self, size: int) -> None:
        """So many blocks were answered."""
        with self._lock:
            if self._limit is None or size < self._limit:
                return
            self._taken += 1
            if self._taken >= self._trial:
                self._good, self._limit, self._taken = size, 2 * size, 0
            elif self._good is not None and size > self._good:
                self._good, self._trial = None, _FIRST_TRIAL
