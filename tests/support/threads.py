"""Several threads at once, and the moment at which the database makes them wait for each other."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.orm import Session

from sandbox.polling import wait_for
from service.store.database import Database

T = TypeVar("T")


def together(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Start all calls at one moment, each in a thread of its own; their results in order.

    Raises:
        Exception: the first of theirs.
    """
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        barrier.wait(timeout=30)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(run, call) for call in calls]
        return [future.result(timeout=60) for future in futures]


@contextmanager
def in_background(call: Callable[[], T]) -> Iterator[Future[T]]:
    """A call in a thread of its own while the block runs; the block's end waits for it."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(call)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Return once a condition holds."""
    assert wait_for(condition, seconds, every=0.005), f"in {seconds:g} s it did not come about that {what}"


def wait_until_blocked(database: Database, sessions: int) -> None:
    """Return once that many sessions of the database wait for locks of others."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    def blocked() -> bool:
        with database.engine.connect() as connection:
            return connection.scalar(query) == sessions

    wait_until(blocked, f"{sessions} session(s) wait for a lock")


@contextmanager
def holding(database: Database, statement: str, **values: object) -> Iterator[Session]:
    """A transaction that has run a statement and keeps its locks until the end of the block, then commits."""
    with database.transaction() as session:
        session.execute(text(statement), values)
        yield session
