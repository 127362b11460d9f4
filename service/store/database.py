"""The database as the rest of the store uses it: one engine, explicit transactions, ids, the sealer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from service.domain.ids import public_id
from service.store.sealing import Sealer


def make_engine(database_url: str, *, pool_size: int = 10) -> Engine:
    """An engine for PostgreSQL through psycopg.

    Args:
        database_url: ``postgresql://user:password@host:port/name``; the driver is added when none is named.
        pool_size: connections kept; as many again may be opened for a burst.
    """
    url = database_url
    for prefix in ("postgresql://", "postgres://"):
        if url.startswith(prefix):
            url = "postgresql+psycopg://" + url.removeprefix(prefix)
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 10, "application_name": "countersign"},
    )


class Database:
    """Handle on the database, safe to share between threads."""

    def __init__(self, engine: Engine, sealer: Sealer, *, public_url: str = "") -> None:
        """Take what every store function needs.

        Args:
            engine: see ``make_engine``.
            sealer: opens and seals secret columns.
            public_url: base of the links in events, without a trailing slash; empty gives relative links.
        """
        self.engine = engine
        self.sealer = sealer
        self.public_url = public_url

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back on an exception. Never hold it during network I/O."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @staticmethod
    def new_id(kind: str) -> str:
        """A fresh identifier; see ``service.domain.ids``."""
        return public_id(kind, datetime.now(UTC), os.urandom(10))
