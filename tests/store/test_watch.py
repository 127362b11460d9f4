"""The listener: rings on new blocks by whatever way, each chain for itself, one leader each that heals."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from service.domain.chain import ChainView
from service.domain.errors import Unreachable
from service.domain.reasons import Reason
from service.store import observations
from service.store.database import Database
from service.store.tables import ChainCursor, Heartbeat
from service.wiring import WatchParts
from tests.support import rows
from tests.support.fake_chain import FakeChain
from tests.support.heads import ACCEPTED, HEADER, head, saying, websocket_server
from tests.support.threads import wait_until
from workers.watch import watch

OTHER = 1
KILL_LEADERS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND datname = current_database()"
)


class _Bell:
    def __init__(self) -> None:
        self.rung: list[int] = []

    def ring(self, task: str, verb: str, row_id: int) -> None:
        assert (task, verb) == ("countersign.chain", "observe")
        self.rung.append(row_id)


class _Hanging(FakeChain):
    """A node that takes the connection and never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.over = threading.Event()

    def view(self, also: int | None = None) -> ChainView:  # noqa: ARG002 - as the port has it
        self.asked.set()
        self.over.wait(60)
        raise Unreachable("no answer in time", reason=Reason.RPC_UNREACHABLE)


@pytest.fixture(autouse=True)
def _chains(database: Database) -> None:
    observations.ensure_chains(database, [rows.CHAIN_ID, OTHER])


@contextmanager
def _listening(
    database: Database, chains: dict[int, FakeChain], ws_urls: dict[int, str] | None = None
) -> Iterator[_Bell]:
    bell, stop, known = _Bell(), threading.Event(), dict[int, Any](chains)
    urls = {chain_id: SecretStr(url) for chain_id, url in (ws_urls or {}).items()}
    parts = WatchParts(database, known, urls, poll_seconds=0.02, patience_seconds=0.3)
    thread = threading.Thread(target=watch, args=(parts, bell, stop))
    thread.start()
    try:
        yield bell
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive(), "it stops when it is told to"


def _rings_again(chain: FakeChain, bell: _Bell, chain_id: int = rows.CHAIN_ID) -> Callable[[], bool]:
    """A condition: blocks that come from now on are rung for."""
    before = bell.rung.count(chain_id)

    def rung() -> bool:
        chain.mine()
        return bell.rung.count(chain_id) > before

    return rung


def test_a_chain_without_a_subscription_is_polled(database: Database):
    chain = FakeChain()
    rows.shift(database, ChainCursor, rows.CHAIN_ID, due_at=600)
    with _listening(database, {rows.CHAIN_ID: chain}) as bell:
        wait_until(lambda: len(bell.rung) == 1, "the first head rings")
        assert rows.is_due(database, ChainCursor, rows.CHAIN_ID), "first the row, then the bell"
        wait_until(_rings_again(chain, bell), "the next head rings")
    with database.transaction() as session:
        assert session.query(Heartbeat).one().kind == "watch"


def test_a_head_that_is_announced_rings(database: Database):
    with (
        websocket_server(saying(ACCEPTED, head(HEADER))) as url,
        _listening(database, {rows.CHAIN_ID: _Hanging()}, {rows.CHAIN_ID: url}) as bell,
    ):
        wait_until(lambda: bool(bell.rung), "the announced head rings")


@pytest.mark.fault(
    "chain",
    "The subscription to blocks falls silent",
    "noticed, and polled instead",
    "1 min, on slow chains ten usual intervals; then 30 s until it is tried again",
)
def test_a_subscription_that_falls_silent_is_replaced_by_polling(database: Database, caplog: pytest.LogCaptureFixture):
    chain = FakeChain()
    with (
        websocket_server(saying(ACCEPTED, head(HEADER))) as url,
        _listening(database, {rows.CHAIN_ID: chain}, {rows.CHAIN_ID: url}) as bell,
    ):
        wait_until(lambda: len(bell.rung) > 1, "the head is seen without an announcement")
        wait_until(_rings_again(chain, bell), "the next head is, too")
    assert "no new head for too long" in caplog.text


def test_a_chain_that_hangs_delays_neither_the_others_nor_the_end(database: Database):
    broken, whole = _Hanging(), FakeChain()
    with _listening(database, {OTHER: broken, rows.CHAIN_ID: whole}) as bell:
        assert broken.asked.wait(10)
        for _ in range(3):
            wait_until(_rings_again(whole, bell), "the other chain is listened to")
        assert OTHER not in bell.rung
    broken.over.set()


def test_a_chain_that_fails_oddly_is_listened_to_again(database: Database, caplog: pytest.LogCaptureFixture):
    chain = FakeChain()
    chain.fail("view", RuntimeError("a defect"))
    with _listening(database, {rows.CHAIN_ID: chain}) as bell:
        wait_until(lambda: bool(bell.rung), "it is tried again")
    assert "the listener failed" in caplog.text


@pytest.mark.fault("workers", "The listener loses its lock", "it or another one leads", "5 s between tries")
def test_a_leader_whose_lock_is_lost_leads_anew(database: Database, caplog: pytest.LogCaptureFixture):
    chain = FakeChain()
    with _listening(database, {rows.CHAIN_ID: chain}) as bell:
        wait_until(lambda: bool(bell.rung), "it leads")
        with database.transaction() as session:
            session.execute(KILL_LEADERS)
        wait_until(lambda: "the database does not answer" in caplog.text, "the loss is noticed")
        wait_until(_rings_again(chain, bell), "it leads again")
