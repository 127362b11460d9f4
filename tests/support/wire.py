"""What a session says to the database, as libpq writes it down: whoever passes by SQLAlchemy is seen as well."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy.orm import Session


@dataclass
class Count:
    """How many statements were executed; known at the end."""

    executed: int = 0


@contextmanager
def statements(session: Session) -> Iterator[Count]:
    """Count the statements that a session executes meanwhile."""
    pgconn = session.connection().connection.driver_connection.pgconn
    count = Count()
    with tempfile.TemporaryFile() as trace:
        pgconn.trace(trace.fileno())
        try:
            yield count
        finally:
            pgconn.untrace()
        trace.seek(0)
        count.executed = sum(line.split(b"\t")[3:4] in ([b"Execute"], [b"Query"]) for line in trace)
