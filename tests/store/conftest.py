"""A store on a migrated PostgreSQL database of the test's own."""

from collections.abc import Iterator

import pytest

from service.store.database import Database, make_engine
from tests.support import rows


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    engine = make_engine(database_url, pool_size=30)
    yield Database(engine, rows.sealer(), public_url="https://countersign.example")
    engine.dispose()


@pytest.fixture
def workspace(database: Database) -> str:
    return rows.workspace(database)
