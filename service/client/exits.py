"""What a command tells the shell. ``docs/command-line.md`` has the table; a test holds the two together."""

from typing import Final

DONE: Final = 0
"""What was asked for is done; of a wait: the change request completed."""
REFUSED: Final = 1
"""The API refused, answered nonsense, or could not be reached."""
USAGE: Final = 2
"""Wrong options, a file that cannot be read, no API key."""
STILL_LIVE: Final = 8
"""``--timeout`` passed; the change request goes on."""
INTERRUPTED: Final = 130
"""Ctrl-C; the change request goes on."""

OF_STATE: Final[dict[str, int]] = {
    "completed": DONE,
    "rejected": 3,
    "expired": 4,
    "superseded": 5,
    "cancelled": 6,
    "failed": 7,
}
"""Exit code of a wait by the terminal state it ended in."""
