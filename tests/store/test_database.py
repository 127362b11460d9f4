"""Connections, transactions, names that are held, and signs of life."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import cast

import psycopg
import pytest
from psycopg.errors import UniqueViolation
from sqlalchemy import BigInteger, Engine, Table, bindparam, insert, literal, select, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError

from service.store import heartbeats
from service.store.database import Database, Prepared, make_engine, parameters_for, perform
from service.store.locks import leadership, lock_name
from service.store.tables import Heartbeat
from tests.support import rows
from tests.support.postgres import NewDatabase
from tests.support.threads import in_background, wait_until, wait_until_blocked


@pytest.mark.parametrize("scheme", ["postgresql://", "postgres://", "postgresql+psycopg://"])
def test_every_form_of_the_url_leads_to_the_same_driver(database_url: str, scheme: str):
    engine = make_engine(database_url.replace("postgresql://", scheme))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    assert engine.dialect.driver == "psycopg"
    assert ":" not in repr(engine).split("@")[0].removeprefix("Engine(postgresql+psycopg://countersign:***")
    engine.dispose()


def _lose_connections(database_url: str) -> None:
    """End every session of the database but this one, as a restart of the server does."""
    with closing(psycopg.connect(database_url)) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def _use(engine: Engine, connections: int) -> None:
    with ExitStack() as stack:
        for _ in range(connections):
            assert stack.enter_context(engine.connect()).scalar(text("SELECT 1")) == 1


@contextmanager
def _restarted(empty_database: NewDatabase, *, idle_seconds: float) -> Iterator[Engine]:
    """An engine whose three pooled connections the server closed."""
    with empty_database() as url:
        engine = make_engine(url, idle_seconds=idle_seconds)
        _use(engine, 3)
        _lose_connections(url)
        yield engine
        engine.dispose()


def test_a_connection_that_lay_idle_is_asked_whether_it_lives(empty_database: NewDatabase):
    with _restarted(empty_database, idle_seconds=0) as engine:
        _use(engine, 3)


@pytest.mark.fault(
    "database",
    "A connection is lost in use",
    "that statement fails, the pool's other connections are made anew",
    "the next statement",
)
def test_when_a_connection_in_use_is_lost_the_others_are_not_used_either(empty_database: NewDatabase):
    with _restarted(empty_database, idle_seconds=3600) as engine:
        with pytest.raises(OperationalError):
            _use(engine, 1)
        _use(engine, 3)


def test_nor_are_they_when_it_is_a_statement_past_the_orm_that_finds_out(empty_database: NewDatabase):
    statement = Prepared("SELECT 1", {})
    with _restarted(empty_database, idle_seconds=3600) as engine:
        lost = Database(engine, rows.sealer())
        with pytest.raises(OperationalError):
            lost.execute(statement, {})
        assert lost.execute(statement, {}) == [(1,)]


def test_a_statement_past_the_orm_says_like_all_others_that_nobody_is_there():
    absent = Database(make_engine("postgresql://nobody@127.0.0.1:1/none"), rows.sealer())
    with pytest.raises(OperationalError):
        absent.execute(Prepared("SELECT 1", {}), {})
    with pytest.raises(OperationalError):
        absent.look(Prepared("SELECT 1", {}), {})


@pytest.mark.fault(
    "database",
    "The database restarts between two requests to the API",
    "the look for the key finds out and looks again; no request fails",
    "at once",
)
def test_a_look_is_made_again_when_its_connection_was_lost(empty_database: NewDatabase):
    with _restarted(empty_database, idle_seconds=3600) as engine:
        restarted = Database(engine, rows.sealer())
        assert restarted.look(Prepared("SELECT 1", {}), {}) == [(1,)]
        _use(engine, 3)
        with pytest.raises(DataError):
            restarted.look(Prepared("SELECT 1 / 0", {}), {})


ECHO = Prepared.of(select(bindparam("number", type_=BigInteger) + literal(1)))


def test_a_statement_past_the_orm_is_part_of_its_sessions_transaction(database: Database):
    beats = cast("Table", Heartbeat.__table__)
    values = parameters_for(beats, ("process", "kind", "seen_at"))
    beat = Prepared.of(insert(beats).values(values).returning(beats.c.kind))
    given = {"process": "p", "kind": "wor\0ker", "seen_at": rows.NOW}

    def write_and_fail() -> None:
        with database.transaction() as session:
            assert perform(session, beat, given) == [("wor\ufffdker",)], "columns convert as through the session"
            raise TimeoutError

    with pytest.raises(TimeoutError):
        write_and_fail()
    with database.transaction() as session:
        assert session.get(Heartbeat, "p") is None
        session.add(Heartbeat(process="p", kind="worker", seen_at=rows.NOW))
        with pytest.raises(IntegrityError) as refused:
            perform(session, beat, given)  # what was pending is written before it
        assert isinstance(refused.value.orig, UniqueViolation)
        session.rollback()
    with database.transaction() as session:
        assert perform(session, ECHO, {"number": 1}) == [(2,)]


def test_a_parameter_without_a_place_is_a_mistake(database: Database):
    with database.transaction() as session, pytest.raises(TypeError, match="no such parameters: numbre"):
        perform(session, ECHO, {"number": 1, "numbre": 1})


def test_a_transaction_whose_connection_is_lost_past_the_orm_ends(empty_database: NewDatabase):
    with _restarted(empty_database, idle_seconds=3600) as engine:
        restarted = Database(engine, rows.sealer())
        with pytest.raises(OperationalError) as lost, restarted.transaction() as session:
            perform(session, ECHO, {"number": 1})
        assert lost.value.connection_invalidated
        with restarted.transaction() as session:
            assert perform(session, ECHO, {"number": 1}) == [(2,)]


def test_a_transaction_is_all_or_nothing(database: Database):
    def write_and_fail() -> None:
        with database.transaction() as session:
            session.add(Heartbeat(process="p", kind="worker", seen_at=rows.NOW))
            session.flush()
            raise TimeoutError

    with pytest.raises(TimeoutError):
        write_and_fail()
    with database.transaction() as session:
        assert session.get(Heartbeat, "p") is None


@pytest.mark.fault(
    "database", "A process freezes inside a transaction", "PostgreSQL ends its session, its locks are free", "15 s"
)
def test_a_process_frozen_inside_a_transaction_loses_its_locks(database: Database, workspace: str):
    """The server ends such a session itself; here the time it gives is made shorter, so as not to wait for it."""
    idle = "idle_in_transaction_session_timeout"
    locked = text("SELECT id FROM workspaces FOR UPDATE")
    with database.transaction() as session:
        assert session.scalar(text(f"SHOW {idle}")) == "15s", "as long as a lease"
    with database.engine.connect() as frozen:
        frozen.execute(text(f"SET LOCAL {idle} = 50"))
        frozen.execute(locked)
        with database.transaction() as session:
            assert session.scalar(locked) == workspace
        with pytest.raises(DBAPIError) as ended:
            frozen.execute(text("SELECT 1"))
    assert ended.value.connection_invalidated, "it does not go back to the pool"


@pytest.mark.fault(
    "database", "A lock is not given back", "who waits for it gives up, and tries again like after any fault", "10 s"
)
def test_nobody_waits_for_a_lock_for_ever(database: Database, workspace: str):
    locked = text("SELECT id FROM workspaces FOR UPDATE")
    with database.transaction() as session, database.engine.connect() as waiting:
        assert session.scalar(text("SHOW lock_timeout")) == "10s"
        assert session.scalar(locked) == workspace
        waiting.execute(text("SET LOCAL lock_timeout = 20"))
        with pytest.raises(OperationalError, match="lock timeout"):
            waiting.execute(locked)


def test_a_name_is_held_by_one_transaction_at_a_time(database: Database):
    with database.transaction() as holder:
        lock_name(holder, "a")

        def take(name: str) -> bool:
            with database.transaction() as session:
                lock_name(session, name)
            return True

        with in_background(lambda: take("b")) as other_name:
            assert other_name.result()
        with in_background(lambda: take("a")) as same_name:
            wait_until_blocked(database, 1)
            assert not same_name.done()
            holder.commit()
            assert same_name.result()


def test_one_leads_until_it_is_done(database: Database):
    with leadership(database, "watch:1") as first, leadership(database, "watch:1") as second:
        assert (first.leads, second.leads) == (True, False)
        with leadership(database, "watch:2") as other:
            assert other.leads
        first.check()
    with leadership(database, "watch:1") as again:
        assert again.leads


def test_a_leader_whose_session_ended_leads_no_more(database: Database):
    kill = text(
        "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE locktype = 'advisory' AND datname = current_database()"
    )

    def leads() -> bool:
        with leadership(database, "watch:1") as lead:
            return lead.leads

    leading = leadership(database, "watch:1")
    lead = leading.__enter__()
    assert lead.leads
    assert not leads()
    with database.transaction() as session:
        session.execute(kill)
    wait_until(leads, "another one leads")
    with pytest.raises(OperationalError):
        lead.check()
    leading.__exit__(None, None, None)


def test_a_sign_of_life_is_renewed(database: Database):
    heartbeats.beat(database, "host:1", "worker")
    first = rows.read(database, Heartbeat, "host:1").seen_at
    heartbeats.beat(database, "host:1", "watch")
    row = rows.read(database, Heartbeat, "host:1")
    assert row.kind == "watch"
    assert row.seen_at > first
