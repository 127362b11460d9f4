"""Which migration the database is at. Without Alembic, which only those who migrate need to load."""

from functools import cache
from pathlib import Path

from sqlalchemy import Engine, text

import migrations

_HAS_TABLE = text("SELECT to_regclass('alembic_version') IS NOT NULL")
_FOUND = text("SELECT version_num FROM alembic_version")


@cache
def head() -> str:
    """The newest migration of this version of the service: files are named by the revision, which grows."""
    versions = Path(migrations.__file__).parent / "versions"
    return max(path.name.partition("_")[0] for path in versions.glob("[0-9]*.py"))


def is_at_head(engine: Engine) -> bool:
    """Whether every migration of this version of the service has run, and none of a newer one."""
    with engine.connect() as connection:
        return bool(connection.scalar(_HAS_TABLE)) and list(connection.scalars(_FOUND)) == [head()]
