"""The API on a database of the test's own."""

import threading
from collections.abc import Iterator

import pytest

from service.adapters.webhook_guard import WebhookGuard
from service.store.database import Database, make_engine
from service.wiring import ApiParts, ChainLinks
from tests.support import rows
from tests.support.fakes import FixedClock
from tests.support.postgres import NewDatabase
from tests.support.served_api import Api, callers, serving

CHAINS = {
    8453: ChainLinks("base", "https://app.safe.global", "https://basescan.org"),
    rows.CHAIN_ID: ChainLinks("local", "https://safe.example/", "https://explorer.example/"),
}

NAMES = {"hooks.example.com": ["93.184.215.14"], "inside.example.com": ["93.184.215.14", "10.0.0.7"]}


def _parts(database: Database) -> ApiParts:
    guard = WebhookGuard(resolve=lambda host, _: NAMES[host])
    return ApiParts(database=database, clock=FixedClock(rows.NOW), chains=CHAINS, webhook_guard=guard)


@pytest.fixture
def parts(database: Database) -> ApiParts:
    return _parts(database)


@pytest.fixture
def workspaces(database: Database) -> dict[str, str]:
    """Ids of two workspaces, which have a key each, by slug."""
    return callers(database)


@pytest.fixture(scope="module")
def ending() -> Iterator[list[threading.Thread]]:
    """Servers that end: an idle one needs a fifth of a second for it, in which the next test may begin."""
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join()


@pytest.fixture
def api(parts: ApiParts, workspaces: dict[str, str], ending: list[threading.Thread]) -> Iterator[Api]:
    assert len(workspaces) == 2
    with serving(parts, ending) as served:
        yield served


@pytest.fixture(scope="module")
def idle_api(new_database: NewDatabase) -> Iterator[Api]:
    """An API shared by tests that store nothing."""
    with new_database() as url:
        database = Database(make_engine(url), rows.sealer())
        callers(database)
        with serving(_parts(database)) as served:
            yield served
        database.engine.dispose()
