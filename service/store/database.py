"""The database as the rest of the store uses it: one engine, explicit transactions, ids, the sealer."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, LiteralString, Self, TypeVar, cast

import psycopg
from sqlalchemy import BindParameter, ClauseElement, Connection, Engine, Table, bindparam, create_engine, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.orm.attributes import instance_dict
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from service.domain.ids import public_id
from service.store.sealing import Sealer

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler

Entity = TypeVar("Entity", bound=DeclarativeBase)

CONNECTION: Final[Mapping[str, str | int]] = {
    "application_name": "countersign",
    "connect_timeout": 10,
    # A server that is gone without a word is noticed after half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    # A process frozen inside a transaction must not hold its locks for longer than a lease lasts.
    "options": "-c idle_in_transaction_session_timeout=15s -c lock_timeout=10s",
}
"""How every connection is made."""


IDLE_SECONDS: Final = 3.0
"""A connection used again sooner is not asked whether it lives, which is a round trip more for each transaction. The
faults of workers are repeated, and each request to the API begins with a look that finds lost connections out."""


class DatabaseFault(Exception):
    """The database does not answer or refuses; the message is the driver's first line, without address or password."""


@contextmanager
def faults_in_one_line() -> Iterator[None]:
    """Turn errors of the database into ``DatabaseFault``, for those who can only report them."""
    try:
        yield
    except SQLAlchemyError as error:
        raise DatabaseFault(str(getattr(error, "orig", error)).strip().splitlines()[0]) from error


def make_engine(
    database_url: str, *, pool_size: int = 10, idle_seconds: float = 0.0, lock_seconds: float | None = None
) -> Engine:
    """An engine for PostgreSQL through psycopg.

    Args:
        database_url: ``postgresql://user:password@host:port/name``; the driver is added when none is named.
        pool_size: connections kept; as many again may be opened for a burst.
        idle_seconds: a connection that lay idle for longer is asked whether it lives before it is used.
        lock_seconds: how long a statement waits for a lock, if not as long as every other.
    """
    waits = {} if lock_seconds is None else {"options": f"{CONNECTION['options']} -c lock_timeout={lock_seconds}s"}
    url = database_url
    for prefix in ("postgresql://", "postgres://"):
        if url.startswith(prefix):
            url = "postgresql+psycopg://" + url.removeprefix(prefix)
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        hide_parameters=True,  # an error's text goes to logs; parameters hold what users and upstreams sent
        connect_args={**CONNECTION, **waits},
    )
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", partial(_ask_the_idle, engine, idle_seconds))
    return engine


def _note_use(_: object, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _ask_the_idle(
    engine: Engine, idle_seconds: float, connection: DBAPIConnection, record: ConnectionPoolEntry, _: object
) -> None:
    """Whether a connection that lay idle still lives.

    Raises:
        sqlalchemy.exc.InvalidatePoolError: it does not, so that the pool makes new ones.
    """
    used_at = record.info.get("used_at")
    if used_at is None or time.monotonic() - used_at < idle_seconds:
        return
    try:
        engine.dialect.do_ping(connection)
    except psycopg.Error as error:
        raise InvalidatePoolError from error


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement in the driver's own words, made once; psycopg lets the server prepare it.

    Attributes:
        sql: with parameters by name.
        constants: parameters that are always the same, as the driver takes them.
        into: what turns a parameter's value into what the driver takes, where its column's type asks for it.
        names: of the other parameters, where they are known: the driver says nothing of one that has no place.
    """

    sql: LiteralString
    constants: Mapping[str, Any]
    into: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    names: frozenset[str] | None = None

    @classmethod
    def of(cls, statement: ClauseElement) -> Self:
        """Compile a Core statement whose parameters are named by ``bindparam``."""
        dialect = PGDialect_psycopg()  # type: ignore[no-untyped-call]  # SQLAlchemy's own
        compiled = cast("SQLCompiler", statement.compile(dialect=dialect))
        processors = {
            name: bound.type.dialect_impl(dialect).bind_processor(dialect) for name, bound in compiled.binds.items()
        }
        into = {name: process for name, process in processors.items() if process is not None}
        given = {name for name, bound in compiled.binds.items() if bound.required}
        constants = {name: value for name, value in compiled.params.items() if name not in given}
        return cls(
            compiled.string,
            {name: into[name](value) if name in into else value for name, value in constants.items()},
            {name: process for name, process in into.items() if name in given},
            frozenset(given),
        )

    def bound(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters as the driver takes them.

        Raises:
            TypeError: one has no place in the statement.
        """
        if self.names is not None and not parameters.keys() <= self.names:
            raise TypeError(f"no such parameters: {', '.join(sorted(parameters.keys() - self.names))}")
        bound = {**self.constants, **parameters}
        for name, process in self.into.items():
            bound[name] = process(bound[name])
        return bound


def perform(session: Session, statement: Prepared, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """One statement within a session's transaction, past SQLAlchemy; its rows. What is pending is written before it.

    For what is run with each request or step: it costs a third of the CPU of the same statement through the session,
    which does not learn of what it changes.

    Raises:
        sqlalchemy.exc.DBAPIError: whatever the database says, of the same classes as through the session.
    """
    session.flush()
    connection = session.connection()
    driver = cast("psycopg.Connection[tuple[Any, ...]]", connection.connection.driver_connection)
    try:
        return driver.execute(statement.sql, statement.bound(parameters)).fetchall()
    except psycopg.Error as error:
        said = _said(error, driver, connection.engine)
        if driver.broken:
            connection.invalidate(error)
        raise said from error


def _said(error: psycopg.Error, connection: psycopg.Connection[Any], engine: Engine) -> BaseException:
    """A driver's error as SQLAlchemy would raise it. A lost connection takes the pool's others with it."""
    if connection.broken:
        engine.dispose()  # what the server closed is seldom one connection alone
    lost = connection.broken
    return DBAPIError.instance(None, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=lost)


def unattached(entity: type[Entity], values: Sequence[Any]) -> Entity:
    """A row as an object that no session knows; ``values`` are all columns of its table, in their order.

    It is filled at once: the constructor tells the sessions' bookkeeping of each column by itself.
    """
    row = entity()
    instance_dict(row).update(zip(entity.__table__.c.keys(), values, strict=True))
    return row


def parameters_for(table: Table, names: Iterable[str]) -> dict[str, BindParameter[Any]]:
    """Parameters for columns of a table, by their names and with their types."""
    return {name: bindparam(name, type_=table.c[name].type) for name in names}


class Database:
    """Handle on the database, safe to share between threads."""

    def __init__(self, engine: Engine, sealer: Sealer, *, public_url: str = "") -> None:
        """Take what every store function needs.

        Args:
            engine: see ``make_engine``.
            sealer: opens and seals secret columns.
            public_url: base of the links in events, without a trailing slash; empty gives relative links.
        """
        self.engine = engine
        self.sealer = sealer
        self.public_url = public_url

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back on an exception. Never hold it during network I/O."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reads(self) -> Iterator[Session]:
        """A session for statements that only read, each by itself: no transaction to begin and end."""
        with Session(self.engine.execution_options(isolation_level="AUTOCOMMIT"), expire_on_commit=False) as session:
            yield session

    @contextmanager
    def together(self) -> Iterator["Database"]:
        """The database in one transaction, of which all its transactions are parts; committed at the end.

        If one of them fails, all of it is undone at once, and those that come later make up another such transaction.
        """
        with self.engine.connect() as connection:
            yield _Together(connection, self)
            connection.commit()

    def execute(self, statement: Prepared, parameters: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        """One statement that is a transaction of its own, past SQLAlchemy and without BEGIN and COMMIT; its rows.

        For what is run at each block: it costs a third of the CPU of the same statement through a session.

        Raises:
            sqlalchemy.exc.DBAPIError: whatever the database says, of the same classes as through a session.
        """
        with self._raw_connection() as pooled:
            connection = cast("psycopg.Connection[tuple[Any, ...]]", pooled.driver_connection)
            try:
                connection.autocommit = True
                rows = connection.execute(statement.sql, statement.bound(parameters)).fetchall()
                connection.autocommit = False
            except psycopg.Error as error:
                said = _said(error, connection, self.engine)
                pooled.invalidate()
                raise said from error
        return rows

    @contextmanager
    def _raw_connection(self) -> Iterator[PoolProxiedConnection]:
        try:
            pooled = self.engine.raw_connection()
        except psycopg.Error as error:
            raise OperationalError(None, None, error) from error
        try:
            yield pooled
        finally:
            pooled.close()

    def look(self, statement: Prepared, parameters: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        """The same for a statement that only reads: when its connection turns out to be lost, once more on a new one.

        Raises:
            sqlalchemy.exc.DBAPIError: whatever the database says.
        """
        try:
            return self.execute(statement, parameters)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        return self.execute(statement, parameters)

    @staticmethod
    def new_id(kind: str) -> str:
        """A fresh identifier; see ``service.domain.ids``."""
        return public_id(kind, datetime.now(UTC), os.urandom(10))


class _Together(Database):
    def __init__(self, connection: Connection, outer: Database) -> None:
        super().__init__(outer.engine, outer.sealer, public_url=outer.public_url)
        self._connection = connection

    @contextmanager
    def reads(self) -> Iterator[Session]:
        with self.transaction() as session:
            yield session

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        if not self._connection.in_transaction():
            self._connection.begin()  # not by the session, which would commit what it began itself
        try:
            with (
                Session(self._connection, join_transaction_mode="rollback_only", expire_on_commit=False) as session,
                session.begin(),
            ):
                yield session
        except BaseException:
            self._connection.rollback()
            raise
