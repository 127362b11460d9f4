"""Log lines that show what a record carries beside its message, and the ids of what its thread works for."""

import json
import logging
from datetime import UTC, datetime

from service.telemetry.context import ids

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class Ids(logging.Filter):
    """Gives each record the ids of what its thread works for, unless it has its own. For a handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        for name, value in ids().items():
            if name not in record.__dict__:
                setattr(record, name, value)
        return True


class WithExtras(logging.Formatter):
    """Appends ``name=value`` for everything given as ``extra``, values on one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        """The message and what belongs to it."""
        shown = "".join(f" {name}={str(value)!r}" for name, value in sorted(_extras(record).items()))
        return super().formatMessage(record) + shown


class JsonLines(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message, what was given as ``extra``, and the traceback.

    ``change_request_id`` stands where the row of a record is a change request.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        extras = {name: _plain(value) for name, value in _extras(record).items()}
        row = str(extras.get("row", ""))
        own = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if row.startswith("cr_"):
            own["change_request_id"] = row
        if record.exc_info:
            own["traceback"] = self.formatException(record.exc_info)
        return json.dumps(extras | own, ensure_ascii=False)


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


def _plain(value: object) -> object:
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
