"""The model's own connections."""

from collections.abc import Iterator
from typing import Final

import pytest

from service.store.database import Database, make_engine
from tests.support import rows

IDLE_SECONDS: Final = 600
"""Nothing cuts its connections, so none is asked before each use whether it lives."""


@pytest.fixture
def database(database: Database) -> Iterator[Database]:
    """The emptied database of the store's tests."""
    url = database.engine.url.render_as_string(hide_password=False)
    engine = make_engine(url, pool_size=4, idle_seconds=IDLE_SECONDS)
    try:
        yield Database(engine, rows.sealer(), public_url=database.public_url)
    finally:
        engine.dispose()
