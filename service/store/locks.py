"""Advisory locks on names: one kind ends with its transaction, the other with its session."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text
from sqlalchemy.orm import Session

from service.store.database import Database


def lock_name(session: Session, name: str) -> None:
    """Wait until nobody else holds ``name``, and hold it until the transaction ends."""
    session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})


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
