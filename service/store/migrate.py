"""Bringing the database to the newest migration."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from psycopg.errors import LockNotAvailable
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

import migrations
from service.store.database import make_engine

_LOCK = 0x6D69677261746564
"""Advisory lock of whoever migrates; the number spells "migrated"."""


LOCK_SECONDS: Final = 2
"""How long a migration waits for a lock before it gives up its place: whoever comes after it waits behind it."""
PAUSE_SECONDS: Final = 3.0
TRIES: Final = 100

log = logging.getLogger(__name__)


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.attributes["database_url"] = database_url
    config.attributes["lock_seconds"] = LOCK_SECONDS
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Run the migrations up to ``revision``; a second process that does so at the same time waits its turn.

    Workers may go on meanwhile: a migration that does not get a lock soon is undone, and tried again.

    Raises:
        sqlalchemy.exc.OperationalError: the database does not answer, or a lock was not given for some eight minutes.
    """
    with _alone(database_url):
        _patiently(lambda: command.upgrade(_config(database_url), revision))


def downgrade(database_url: str, revision: str) -> None:
    """Run the migrations down to ``revision`` (``base`` for none), for tests: see ``docs/operations.md``.

    Raises:
        sqlalchemy.exc.OperationalError: as above.
    """
    with _alone(database_url):
        _patiently(lambda: command.downgrade(_config(database_url), revision))


def _patiently(migrate: Callable[[], None]) -> None:
    """Each migration is a transaction of its own, so a further try goes on where the last one stopped."""
    for left in reversed(range(TRIES)):
        try:
            return migrate()
        except OperationalError as error:
            if not left or not isinstance(error.orig, LockNotAvailable):
                raise
        log.warning("a migration waits for a long transaction to end")
        time.sleep(PAUSE_SECONDS)  # others go on meanwhile: who asks for the lock stops all who come after
    return None


@contextmanager
def _alone(database_url: str) -> Iterator[None]:
    engine = make_engine(database_url, pool_size=1)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # Held by the session: it goes with the connection, whatever happens to us.
            connection.execute(text("SET lock_timeout = 0"))
            connection.execute(select(func.pg_advisory_lock(_LOCK)))
            yield
            connection.execute(select(func.pg_advisory_unlock(_LOCK)))
    finally:
        engine.dispose()
