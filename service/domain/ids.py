"""Public identifiers: ``<kind>_`` + 12 hex digits of milliseconds + 20 random ones, so that they sort by age. Pure."""

import re
from datetime import datetime


def public_id(kind: str, now: datetime, randomness: bytes) -> str:
    """An identifier such as ``cr_0193…``.

    Args:
        kind: short prefix: ``cr`` change request, ``prop`` proposal, ``stx`` Safe transaction, ``evt`` event,
            ``ep`` webhook endpoint, ``dlv`` delivery, ``ws`` workspace.
        now: aware time.
        randomness: 10 random bytes.
    """
    return f"{kind}_{int(now.timestamp() * 1000):012x}{randomness.hex()}"


def form_of(kind: str) -> re.Pattern[str]:
    """What the identifiers of a kind look like; to be matched in full."""
    return re.compile(rf"{kind}_[0-9a-f]{{32}}")
