"""A store on a migrated PostgreSQL database; each test finds it empty."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, event

from service.store.columns import Base
from service.store.database import Database, make_engine
from tests.support import rows
from tests.support.postgres import NewDatabase


@pytest.fixture(scope="session")
def _engine(new_database: NewDatabase) -> Iterator[Engine]:
    with new_database() as url:
        engine = make_engine(url, pool_size=30)
        yield engine
        engine.dispose()


@pytest.fixture
def database(_engine: Engine) -> Iterator[Database]:
    """Emptied, not made anew: a database of its own for each test would cost most of the time."""
    yield Database(_engine, rows.sealer(), public_url="https://countersign.example")
    with _engine.begin() as connection:
        emptied = "; ".join(str(table.delete()) for table in reversed(Base.metadata.sorted_tables))
        connection.exec_driver_sql(f"SET LOCAL countersign.retention = 'on'; {emptied}")


@pytest.fixture
def workspace(database: Database) -> str:
    return rows.workspace(database)


@pytest.fixture
def closed_engines(database: Database) -> Iterator[None]:
    """Closes what processes leave to their end."""
    used: set[Engine] = set()

    def note(connection: Connection) -> None:
        used.add(connection.engine)

    event.listen(Engine, "engine_connect", note)
    yield
    event.remove(Engine, "engine_connect", note)
    for engine in used - {database.engine}:
        engine.dispose()
