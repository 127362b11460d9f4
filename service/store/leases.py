"""Leases: who may serve a row now. Timed by the database's clock, carrying a fence that every write checks."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from types import TracebackType
from typing import Any, Self, cast

from sqlalchemy import ColumnElement, Table, and_, bindparam, case, func, literal, null, or_, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.dml import ReturningUpdate

from service.store.database import Database, Prepared
from service.store.tables import ChainCursor, ChangeRequest, PhalaRecovery, Proposal, WebhookEndpoint

LEASE = text("interval '15 seconds'")
RENEW_SECONDS = 5.0
RING_AGAIN = text("interval '10 seconds'")

LeasedTable = type[ChangeRequest] | type[Proposal] | type[ChainCursor] | type[WebhookEndpoint] | type[PhalaRecovery]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """A held row. ``due_at`` is what it was when taken: a doorbell during the lease changes it."""

    table: LeasedTable
    row_id: str | int
    fence: int
    due_at: datetime


def key_of(table: LeasedTable) -> InstrumentedAttribute[Any]:
    """The primary key column of a leased table."""
    keys: dict[LeasedTable, InstrumentedAttribute[Any]] = {
        ChangeRequest: ChangeRequest.id,
        Proposal: Proposal.id,
        ChainCursor: ChainCursor.chain_id,
        WebhookEndpoint: WebhookEndpoint.id,
        PhalaRecovery: PhalaRecovery.workspace_id,
    }
    return keys[table]


def held(lease: Lease) -> ColumnElement[bool]:
    """Condition that the lease still holds: nobody has taken the row since, and it was not given back.

    A lease whose time is over still holds as long as nobody took the row: the fence decides, not the clock.
    """
    table = lease.table
    return and_(key_of(table) == lease.row_id, table.fence == lease.fence, table.lease_until.is_not(None))


def is_held(table: LeasedTable) -> ColumnElement[bool]:
    """The condition of ``held`` with its lease in parameters, for statements that are made once."""
    mine = and_(key_of(table) == bindparam("leased_id"), table.fence == bindparam("leased_fence"))
    return and_(mine, table.lease_until.is_not(None))


def parameters_of(lease: Lease) -> dict[str, Any]:
    """A lease as the parameters of ``is_held``."""
    return {"leased_id": lease.row_id, "leased_fence": lease.fence}


def acquire(database: Database, table: LeasedTable, row_id: str | int) -> Lease | None:
    """Take a due row that nobody holds, or ``None``."""
    rows = database.execute(_acquiring(table), {"row_id": row_id})
    return None if not rows else Lease(table, row_id, *rows[0])


@cache
def _acquiring(leased: LeasedTable) -> Prepared:
    table = cast("Table", leased.__table__)
    row = table.c
    # Not now(), which is when the transaction began: it may have waited for the row since.
    now = func.clock_timestamp()
    statement = (
        update(table)
        .where(
            row[key_of(leased).name] == bindparam("row_id"),
            row.due_at <= now,
            or_(row.lease_until.is_(None), row.lease_until < now),
        )
        .values(lease_until=now + LEASE, fence=row.fence + 1, rung_at=null())
        .returning(row.fence, row.due_at)
    )
    return Prepared.of(statement)


def given_back(due_at: ColumnElement[datetime] | None) -> dict[str, Any]:
    """Column values of a row whose lease ends, due at that time: whatever was rung for it is served."""
    return {"lease_until": None, "rung_at": None, "due_at": due_at}


def due_again(lease: Lease, seconds: float) -> ColumnElement[datetime]:
    """``due_at`` after a wait: at once if a doorbell rang during the lease."""
    rang = lease.table.due_at.is_distinct_from(lease.due_at)
    now = func.clock_timestamp()
    return case((rang, now), else_=now + func.make_interval(0, 0, 0, 0, 0, 0, literal(seconds)))


def at_once(lease: Lease) -> ColumnElement[datetime]:
    """``due_at`` of a row whose lease ends without an outcome; null stays, for what is not to be served."""
    return case((lease.table.due_at.is_(None), null()), else_=func.clock_timestamp())


def _shares_of(table: LeasedTable) -> InstrumentedAttribute[Any]:
    """What rows wait for together: when one of these is broken, its backlog must not hold up the rows of others."""
    shares: dict[LeasedTable, InstrumentedAttribute[Any]] = {
        ChangeRequest: ChangeRequest.chain_id,
        Proposal: Proposal.chain_id,
    }
    return shares.get(table, key_of(table))


def ring_due(
    database: Database, table: LeasedTable, limit: int, *conditions: ColumnElement[bool]
) -> list[tuple[Any, str]]:
    """Rows that are due, that nobody holds, and that nobody rang for lately; they are stamped as rung.

    The longest due come first within each chain, which take turns.

    Args:
        database: where.
        table: which kind.
        limit: at most so many.
        conditions: what else must hold.

    Returns:
        (id, state) of each; the state is empty for tables without one.
    """
    key = key_of(table)
    state = table.__table__.c.get("state", literal(""))
    due = and_(
        table.due_at <= func.now(),
        or_(table.lease_until.is_(None), table.lease_until < func.now()),
        or_(table.rung_at.is_(None), table.rung_at < func.now() - RING_AGAIN),
        *conditions,
    )
    turn = func.row_number().over(partition_by=_shares_of(table), order_by=table.due_at)
    turns = select(key.label("id"), turn.label("turn")).where(due).subquery()
    waiting = (
        select(key, state)
        .join(turns, key == turns.c.id)
        .where(due)  # looked at again once the row is locked: another sweep may have rung for it
        .order_by(turns.c.turn, table.due_at)
        .limit(limit)
        .with_for_update(of=table, skip_locked=True)
    )
    with database.transaction() as session:
        rows = [(row[0], row[1]) for row in session.execute(waiting)]
        if rows:
            session.execute(update(table).where(key.in_([row_id for row_id, _ in rows])).values(rung_at=func.now()))
    return rows


def ring(
    session: Session, table: type[ChangeRequest] | type[Proposal], *conditions: ColumnElement[bool]
) -> Sequence[tuple[str, str]]:
    """Make the rows that meet the conditions due now; (id, state) of each.

    Locked in the order of their ids: two that ring for the same rows wait for each other, never in a circle.
    """
    statement = ringing(table, *conditions).execution_options(synchronize_session=False)
    return [(row.id, row.state) for row in session.execute(statement)]


def ringing(table: type[ChangeRequest] | type[Proposal], *conditions: ColumnElement[bool]) -> ReturningUpdate[str, str]:
    """The statement of ``ring``, to be a part of a larger one."""
    rows = select(table.id).where(*conditions).order_by(table.id).with_for_update(key_share=True, of=table).cte("rows")
    return (
        update(table)
        .where(table.id == rows.c.id)
        .values(due_at=func.clock_timestamp(), rung_at=null())
        .returning(table.id, table.state)
    )


class LeaseKeeper:
    """Renews the leases of one process while their calls run, in one thread.

    Attributes:
        closing: the process was told to stop: whoever asks takes no new lease.
    """

    def __init__(self, database: Database, *, every_seconds: float = RENEW_SECONDS) -> None:
        """Take the database; entering the context begins renewing."""
        self._database = database
        self._every_seconds = every_seconds
        self.closing = False
        self._held: set[Lease] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def add(self, lease: Lease) -> None:
        """Begin to renew a lease."""
        with self._lock:
            self._held.add(lease)

    def drop(self, lease: Lease) -> None:
        """Stop renewing it."""
        with self._lock:
            self._held.discard(lease)

    def close(self) -> None:
        """Take no new leases from now on; those held are renewed on."""
        self.closing = True

    def give_all_back(self) -> int:
        """Give every held lease back now, due at once, whatever is under way for it; how many there were.

        Whoever still works for one finds it lost, as if somebody had taken the row over.
        """
        with self._lock:
            leases = tuple(self._held)
            self._held.clear()
        for lease in leases:
            with self._database.transaction() as session:
                session.execute(update(lease.table).where(held(lease)).values(**given_back(at_once(lease))))
        return len(leases)

    def _run(self) -> None:
        while not self._stop.wait(self._every_seconds):
            with self._lock:
                leases = tuple(self._held)
            for lease in leases:
                self._renew(lease)

    def _renew(self, lease: Lease) -> None:
        try:
            with self._database.transaction() as session:
                renewed = update(lease.table).where(held(lease)).values(lease_until=func.clock_timestamp() + LEASE)
                session.execute(renewed)
        except SQLAlchemyError:
            log.warning("a lease could not be renewed", extra={"row": str(lease.row_id)}, exc_info=True)
