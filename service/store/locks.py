"""Leadership by advisory lock: held by a session, gone with it."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from service.store.database import Database


@contextmanager
def leadership(database: Database, name: str) -> Iterator[bool]:
    """Whether this process leads ``name`` for the length of the block; if not, somebody else does."""
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        led = bool(connection.scalar(text("SELECT pg_try_advisory_lock(hashtextextended(:name, 1))"), {"name": name}))
        try:
            yield led
        finally:
            if led:
                connection.execute(text("SELECT pg_advisory_unlock(hashtextextended(:name, 1))"), {"name": name})
