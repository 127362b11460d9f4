"""Advisory locks on names: one kind ends with its transaction, the other with its session."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from service.store.database import Database


def lock_name(session: Session, name: str) -> None:
    """Wait until nobody else holds ``name``, and hold it until the transaction ends."""
    session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})


@dataclass(frozen=True, slots=True)
class Leadership:
    """Whether this process leads, and the connection that it depends on."""

    leads: bool
    _connection: Connection

    def check(self) -> None:
        """Do nothing as long as the lock's connection lives.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: it died, and the lock with it: somebody else may lead now.
        """
        self._connection.execute(text("SELECT 1"))


@contextmanager
def leadership(database: Database, name: str) -> Iterator[Leadership]:
    """Try to lead ``name`` for the length of the block; if this process does not, somebody else does."""
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        led = bool(connection.scalar(text("SELECT pg_try_advisory_lock(hashtextextended(:name, 1))"), {"name": name}))
        try:
            yield Leadership(led, connection)
        finally:
            if led and not connection.invalidated:
                connection.execute(text("SELECT pg_advisory_unlock(hashtextextended(:name, 1))"), {"name": name})
