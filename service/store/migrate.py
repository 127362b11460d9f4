"""Bringing the database to the newest migration."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import func, select, text

import migrations
from service.store.database import make_engine

_LOCK = 0x6D69677261746564
"""Advisory lock of whoever migrates; the number spells "migrated"."""


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.attributes["database_url"] = database_url
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Run the migrations up to ``revision``; a second process that does so at the same time waits its turn."""
    with _alone(database_url):
        command.upgrade(_config(database_url), revision)


def downgrade(database_url: str, revision: str) -> None:
    """Run the migrations down to ``revision`` (``base`` for none)."""
    with _alone(database_url):
        command.downgrade(_config(database_url), revision)


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
