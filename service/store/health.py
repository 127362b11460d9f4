"""Faults by which the database says that it is not there, for whoever answers to people."""

from typing import Final

from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError  # noqa: A004 - the pool's own

UNAVAILABLE: Final[tuple[type[Exception], ...]] = (OperationalError, InterfaceError, TimeoutError)
"""Refused or lost connection, a server that shuts down or cancels, no free connection in time. Others are defects."""
