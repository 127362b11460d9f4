"""Following a change request to its end."""

import time
from collections.abc import Callable
from typing import Final

from service.client import exits
from service.client.http import Api
from service.client.text import Json, progress

LONGEST_POLL: Final = 30
"""Seconds: signatures do not end a poll, so this is also how late they are shown."""
PATIENCE: Final = 300.0
"""Seconds for which the service may be away meanwhile: a wait of days should outlive an update of the service."""


def follow(api: Api, request: Json, timeout: float | None, say: Callable[[str], None]) -> tuple[Json, int]:
    """Wait for the end, saying what is new on the way.

    Args:
        api: where to read.
        request: the change request as it is known.
        timeout: seconds; without one the wait lasts as long as the change request.
        say: takes one line.

    Returns:
        The change request as read last, and the exit code.
    """
    ends_at = None if timeout is None else time.monotonic() + timeout
    said: list[str] = []
    while True:
        lines = progress(request)
        for line in lines:
            if line not in said:
                say(line)
        said = lines
        if request["state"] in exits.OF_STATE:
            return request, exits.OF_STATE[request["state"]]
        left = PATIENCE if ends_at is None else ends_at - time.monotonic()
        if left <= 0:
            return request, exits.STILL_LIVE
        seconds = max(1, min(LONGEST_POLL, int(left)))
        patience = min(PATIENCE, left)
        request = api.read_when_changed(request["id"], request["state"], seconds, patience=patience)
