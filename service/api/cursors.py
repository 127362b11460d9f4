"""Opaque cursors of lists."""

import base64
import binascii
import re
from typing import Final

from service.api.problems import INVALID_REQUEST, InvalidPart, Problem
from service.domain.ids import form_of

REQUEST_ID: Final = form_of("cr")
KEY_ID: Final = form_of("key")


def encode(last_id: str) -> str:
    """Cursor for what comes after ``last_id``."""
    return base64.urlsafe_b64encode(last_id.encode()).rstrip(b"=").decode()


def decode(cursor: str | None, form: re.Pattern[str] = REQUEST_ID) -> str | None:
    """What is in a cursor: an id, or whatever has the ``form``.

    Raises:
        Problem: ``invalid_request``: no cursor of ours.
    """
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    if not form.fullmatch(text):
        part = InvalidPart(parameter="cursor", detail="give the next_cursor of an earlier page, unchanged")
        raise Problem(INVALID_REQUEST, f"cursor: {part.detail}", errors=[part])
    return text
