"""When people are told that the time of a waiting change request runs out. Pure."""

from datetime import datetime, timedelta
from typing import Final

MARKS: Final = (timedelta(days=3), timedelta(days=1), timedelta(hours=6))
"""How long before an end it is told; each once."""

REFRESH_WINDOW: Final = MARKS[0]
"""How long before its end a commit token is renewed, where the patch is known."""


def mark_to_tell(ends_at: datetime, now: datetime, *, told: int | None, began_at: datetime | None = None) -> int | None:
    """The mark that was passed and not told yet, in seconds before the end; ``None`` when there is nothing to tell.

    Of several that were passed meanwhile only the last counts.

    Args:
        ends_at: what is counted down to.
        now: the time.
        told: the last mark that was told, in seconds.
        began_at: since when it was known; marks that were passed by then already say nothing new.
    """
    left = ends_at - now
    if left <= timedelta(0):
        return None
    passed = [mark for mark in MARKS if left <= mark and (began_at is None or ends_at - began_at > mark)]
    newest = int(min(passed, default=timedelta(0)).total_seconds())
    return newest if newest and (told is None or newest < told) else None
