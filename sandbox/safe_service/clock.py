"""Time as the service keeps and shows it: whole microseconds since 1970, printed as ISO 8601 with Z."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def system_clock() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def show(micros: int | None) -> str | None:
    """`2026-11-23T02:32:38Z`, with six decimals unless they are all zero."""
    if micros is None:
        return None
    return (_EPOCH + micros * _MICROSECOND).isoformat().replace("+00:00", "Z")


def parse(text: str) -> int:
    """Read an ISO 8601 time.

    Raises:
        ValueError: it is none.
    """
    moment = datetime.fromisoformat(text)
    return to_micros(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
