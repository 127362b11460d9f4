"""The feed of a workspace: nothing is skipped, whichever transaction commits first."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy.orm import Session

from service.domain.outcomes import Notice
from service.store import events, feed
from service.store.database import Database
from service.store.feed import FeedFilters, Place
from service.store.tables import ChangeRequest
from tests.support import rows

EVERYTHING = FeedFilters()


@contextmanager
def telling(database: Database, request_id: str, name: str = Notice.ALERT) -> Iterator[Session]:
    """An open transaction that wrote an event."""
    with Session(database.engine) as session:
        events.append(
            database, session, session.get_one(ChangeRequest, request_id), name=name, actor=rows.ACTOR, now=rows.NOW
        )
        session.flush()
        yield session


def tell(database: Database, request_id: str, name: str = Notice.ALERT) -> None:
    with telling(database, request_id, name) as session:
        session.commit()


class Reader:
    """Reads on from where it was."""

    def __init__(self, database: Database, workspace_id: str, filters: FeedFilters = EVERYTHING) -> None:
        self._database, self._workspace_id, self._filters = database, workspace_id, filters
        self._place = Place()

    def read(self, limit: int = 100) -> list[str | None]:
        """Change requests of the events that are new."""
        with self._database.transaction() as session:
            found = feed.read(session, self._workspace_id, self._filters, after=self._place, limit=limit)
        if found:
            self._place = Place(found[-1].transaction_id, found[-1].position)
        return [event.change_request_id for event in found]


@pytest.fixture
def pair(database: Database, workspace: str) -> tuple[str, str]:
    return rows.change_request(database, workspace), rows.change_request(database, workspace)


def test_what_commits_late_is_not_skipped(database: Database, workspace: str, pair: tuple[str, str]):
    first, second = pair
    reader = Reader(database, workspace)
    with telling(database, first) as late:
        tell(database, second)
        assert reader.read() == []  # the second has committed, and waits for the first
        late.commit()
    assert reader.read() == [first, second]
    assert reader.read() == []


def test_a_transaction_that_began_first_and_wrote_last_is_not_skipped(
    database: Database, workspace: str, pair: tuple[str, str]
):
    """Its number is lower and its position higher: by positions alone the other one would be read past it."""
    first, second = pair
    reader = Reader(database, workspace)
    with Session(database.engine) as early, telling(database, second) as late:
        late.rollback()
        early.connection().exec_driver_sql("SELECT pg_current_xact_id()")
        with telling(database, second) as other:
            events.append(
                database, early, early.get_one(ChangeRequest, first), name=Notice.ALERT, actor=rows.ACTOR, now=rows.NOW
            )
            early.commit()
            assert reader.read() == [first]
            other.commit()
    assert reader.read() == [second]


def test_what_is_rolled_back_never_was(database: Database, workspace: str, pair: tuple[str, str]):
    first, second = pair
    reader = Reader(database, workspace)
    with telling(database, first) as session:
        tell(database, second)
        session.rollback()
    assert reader.read() == [second]


def test_pages_follow_each_other(database: Database, workspace: str, pair: tuple[str, str]):
    first, second = pair
    for request_id in (first, second, first, first, second):
        tell(database, request_id)
    reader = Reader(database, workspace)
    assert [reader.read(2) for _ in range(4)] == [[first, second], [first, first], [second], []]


def test_filters_narrow_it(database: Database, workspace: str, pair: tuple[str, str]):
    first, second = pair
    tell(database, first, Notice.ALERT)
    tell(database, second, Notice.REORGED)
    tell(database, second, Notice.ALERT)

    def count(*types: str, of: str | None = None) -> int:
        return len(Reader(database, workspace, FeedFilters(types, of)).read())

    assert count("change_request.alert") == 2
    assert count("change_request.*") == 3
    assert count("webhook_endpoint.*", "change_request.reorged") == 1
    assert count("change_request_alert") == count("change_request%") == 0
    assert count(of=second) == 2
    assert count("change_request.reorged", of=first) == 0


def test_it_is_the_workspaces_own(database: Database, pair: tuple[str, str]):
    tell(database, pair[0])
    assert Reader(database, rows.workspace(database, "other")).read() == []
