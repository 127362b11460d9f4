"""Log lines that show what a record carries beside its message."""

import logging

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class WithExtras(logging.Formatter):
    """Appends ``name=value`` for everything given as ``extra``, values on one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        """The message and what belongs to it."""
        extras = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        shown = "".join(f" {name}={str(value)!r}" for name, value in sorted(extras.items()))
        return super().formatMessage(record) + shown
