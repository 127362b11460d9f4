"""Server-sent events as this API uses them, read the way the official SDK reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pydantic_core

from service.phala.errors import BadResponse
from service.phala.models.base import Model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MAX_LINE_BYTES: Final = 1024 * 1024


class WatchEvent(Model):
    """One event of a stream: ``state``, ``complete``, ``timeout``, ``error``, or a name not known yet.

    ``data`` is the parsed JSON. Data that is no JSON, and trouble with the connection, arrive as ``error`` with
    ``data["error"]`` as text.
    """

    type: str
    data: Any = None


def read_events(chunks: Iterable[bytes]) -> Iterator[WatchEvent]:
    """The events of a stream, in order; an unfinished last one is dropped.

    Lines end at LF and are trimmed. ``data:`` replaces, it does not append; an empty line ends an event that has both
    name and data; every other line is ignored.

    Raises:
        BadResponse: a line without end.
    """
    name = data = ""
    for line in _lines(chunks):
        if line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data = line[5:].strip()
        elif not line:
            if name and data:
                yield _event(name, data)
            name = data = ""


def _event(name: str, data: str) -> WatchEvent:
    try:
        return WatchEvent(type=name, data=pydantic_core.from_json(data))
    except ValueError:
        return WatchEvent(type="error", data={"error": "the data of an event is no JSON"})


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    buffer = b""
    for chunk in chunks:
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").strip()
        if len(buffer) > _MAX_LINE_BYTES:
            raise BadResponse("an event stream with a line that does not end", retryable=True)
