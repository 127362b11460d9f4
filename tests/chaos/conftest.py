"""One site for all scenarios: processes behind proxies, whole again after each test."""

from collections.abc import Iterator

import pytest

from sandbox.polling import wait_for
from tests.chaos import invariants
from tests.chaos.points import Board
from tests.chaos.site import Site
from tests.support.stack import Stack

_WHOLE_SECONDS = 60


@pytest.fixture(scope="package")
def running_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("chaos")) as site:
        yield site


@pytest.fixture
def site(running_site: Site) -> Iterator[Site]:
    """Whatever a test did: in the end all runs again, and what must hold holds."""
    yield running_site
    running_site.heal()
    assert wait_for(running_site.all_run, _WHOLE_SECONDS)
    found = invariants.check(running_site.dsn, invariants.ALWAYS)
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.fixture
def stack(site: Site) -> Stack:
    """The words of its users."""
    return site.stack


@pytest.fixture
def board(site: Site) -> Iterator[Board]:
    """Hears of everything on the wire."""
    with Board(site) as listening:
        yield listening
