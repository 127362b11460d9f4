"""Opaque cursors of lists."""

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from service.api.problems import INVALID_REQUEST, InvalidPart, Problem
from service.domain.ids import form_of
from service.store.request_lists import Place, Sort

REQUEST_ID: Final = form_of("cr")
# Seventeen digits of microseconds reach to the year 5138.
_REQUEST_PLACE: Final = re.compile(rf"(-?[a-z_]+)\.([0-9]{{1,17}})\.({REQUEST_ID.pattern})")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
KEY_ID: Final = form_of("key")


def of_requests(place: Place) -> str:
    """Cursor of a list of change requests: its order, and what comes after ``place``."""
    moment = 0 if place.updated_at is None else (place.updated_at - _EPOCH) // _MICROSECOND
    return encode(f"{place.sort}.{moment}.{place.id}")


def request_place(cursor: str | None, sort: Sort | None) -> Place | None:
    """What is in a cursor of a list of change requests.

    Raises:
        Problem: ``invalid_request``: no cursor of ours, or one of another order than ``sort``.
    """
    text = decode(cursor, _REQUEST_PLACE)
    if text is None:
        return None
    name, moment, request_id = text.split(".")
    told = next((one for one in Sort if one == name), None)
    if told is None or sort not in (None, told):
        raise _not_ours("it belongs to another order: leave `sort` out, or begin at the first page")
    return Place(told, request_id, _EPOCH + int(moment) * _MICROSECOND if told.by_update else None)


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
        raise _not_ours("give the next_cursor of an earlier page, unchanged")
    return text


def _not_ours(detail: str) -> Problem:
    part = InvalidPart(parameter="cursor", detail=detail)
    return Problem(INVALID_REQUEST, f"cursor: {part.detail}", errors=[part])
