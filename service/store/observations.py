"""Looks at chains: taken under a lease with what is known, given back with what was seen.

Most looks see no log that concerns anybody. Such a look costs two statements, each a transaction of its own: one takes
the chain, one gives it back and rings for what became final. They are built once, and ask about the contracts that
appeared in the logs, never about all that are waited for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import (
    ARRAY,
    Boolean,
    Double,
    Select,
    Table,
    Text,
    any_,
    bindparam,
    case,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningUpdate

from service.domain.chain import Block, ChainFact, Cursor, Observation
from service.domain.errors import LeaseLost
from service.domain.states import State
from service.store import leases, news, snapshots, tables
from service.store.columns import plain
from service.store.database import Database, Prepared
from service.store.leases import LEASE, Lease, due_again, given_back, held
from service.store.tables import ChainCursor, ChangeRequest

_CURSORS: Final = cast("Table", ChainCursor.__table__)
_FACTS: Final = cast("Table", tables.ChainFact.__table__)
_REQUESTS: Final = cast("Table", ChangeRequest.__table__)

_WATCHED: Final = ChangeRequest.state.in_(plain(State.PREPARED, State.PROPOSED, State.EXECUTED, State.REGISTERED))


def _take() -> ReturningUpdate[Any]:
    cursor, now = _CURSORS.c, func.clock_timestamp()
    above = (
        _FACTS.c.chain_id == cursor.chain_id,
        _FACTS.c.orphaned_at.is_(None),
        _FACTS.c.block_number > func.coalesce(cursor.block_number, 0),
    )
    known = select(func.json_agg(snapshots.FACT)).where(*above).scalar_subquery()
    return (
        update(_CURSORS)
        .where(
            cursor.chain_id == bindparam("chain"),
            cursor.due_at <= now,
            or_(cursor.lease_until.is_(None), cursor.lease_until < now),
        )
        .values(lease_until=now + LEASE, fence=cursor.fence + 1, rung_at=None)
        .returning(
            cursor.fence,
            cursor.due_at,
            cursor.block_number,
            cursor.block_hash,
            cursor.read_to,
            cursor.gap,
            cursor.attempts,
            cursor.detail,
            known.label("known"),
        )
    )


def _give_back() -> ReturningUpdate[Any]:
    """Store how far a look got; unless ``anyway``, only when no log that it saw concerns anybody."""
    cursor, request = _CURSORS.c, _REQUESTS.c
    contracts: Any = bindparam("contracts", type_=ARRAY(Text))
    concerned = exists().where(request.chain_id == cursor.chain_id, _WATCHED, request.app_contract == any_(contracts))
    now = func.clock_timestamp()
    again = now + func.make_interval(0, 0, 0, 0, 0, 0, bindparam("seconds", type_=Double))
    return (
        update(_CURSORS)
        .where(
            cursor.chain_id == bindparam("chain"),
            cursor.fence == bindparam("taken_fence"),
            cursor.lease_until.is_not(None),
            or_(bindparam("anyway", type_=Boolean), ~concerned),
        )
        .values(
            block_number=bindparam("number"),
            block_hash=bindparam("hash"),
            read_to=bindparam("read"),
            gap=bindparam("left"),
            head_number=bindparam("head"),
            final_number=bindparam("final"),
            looked_at=now,
            detail=bindparam("said"),
            attempts=0,
            lease_until=null(),
            rung_at=null(),
            due_at=case((cursor.due_at.is_distinct_from(bindparam("was_due")), now), else_=again),
        )
        .returning(cursor.chain_id, (cursor.due_at <= func.clock_timestamp()).label("again"))
    )


def _give_back_and_ring() -> Select[Any]:
    """The same, and ring for what became final, by one statement: a row for each, or one without an id."""
    given = _give_back().cte("given")
    rung = leases.ringing(ChangeRequest, *news.became_final(given.c.chain_id, bindparam("final"))).cte("rung")
    return select(given.c.again, rung.c.id, rung.c.state).select_from(given.outerjoin(rung, true())).order_by(rung.c.id)


_TAKE: Final = Prepared.of(_take())
_GIVE_BACK: Final = _give_back()
_GIVE_BACK_AND_RING: Final = Prepared.of(_give_back_and_ring())
_RING: Final = Prepared.of(
    update(_CURSORS)
    .where(_CURSORS.c.chain_id == bindparam("chain"))
    .values(due_at=func.clock_timestamp(), rung_at=null())
    .returning(literal(1))
)


@dataclass(frozen=True, slots=True)
class Look:
    """A chain that may be looked at now.

    Attributes:
        known: facts above the cursor's block that were not orphaned.
        attempts: how many looks before this one failed, since the last that did not.
        detail: what the last look said.
    """

    lease: Lease
    cursor: Cursor | None
    known: tuple[ChainFact, ...]
    attempts: int = 0
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """What a look led to.

    Attributes:
        rung: the change requests that were made due, with their states.
        again: the chain is due already: a doorbell rang during the look, or there is more to catch up with.
    """

    rung: Sequence[tuple[str, State]] = ()
    again: bool = False


def ensure_chains(database: Database, chain_ids: list[int]) -> None:
    """Have a cursor row for each configured chain, due now."""
    with database.transaction() as session:
        for chain_id in chain_ids:
            session.execute(insert(ChainCursor).values(chain_id=chain_id, due_at=func.now()).on_conflict_do_nothing())


def take(database: Database, chain_id: int) -> Look | None:
    """Take a chain that is due and that nobody holds, with what is known of it; ``None`` when there is none."""
    rows = database.execute(_TAKE, {"chain": chain_id})
    if not rows:
        return None
    ((fence, due_at, number, block_hash, read_to, gap, attempts, detail, known),) = rows
    cursor = None if number is None else Cursor(Block(number, block_hash), read_to, gap)
    facts = tuple(map(snapshots.chain_fact, known or ()))
    return Look(Lease(ChainCursor, chain_id, fence, due_at), cursor, facts, attempts, detail)


def apply(database: Database, lease: Lease, seen: Observation, *, interval_seconds: float, now: datetime) -> Applied:
    """Store what an observation brought, ring for the change requests it concerns, and give the lease back.

    Facts of contracts that nobody waits for are left out: a request that comes later reads the state.

    Raises:
        LeaseLost: another worker took over; nothing was written.
    """
    contracts = sorted({fact.app_contract for fact in seen.facts})
    chain_id = int(lease.row_id)
    values = _values(lease, seen, contracts, interval_seconds)
    if not seen.orphaned:
        given = database.execute(_GIVE_BACK_AND_RING, {**values, "anyway": False})
        if given:
            rung = [(request_id, State(state)) for _, request_id, state in given if request_id is not None]
            return Applied(rung, again=given[0][0])
    with database.transaction() as session:
        back = session.execute(_GIVE_BACK, {**values, "anyway": True}).one_or_none()
        if back is None:
            raise LeaseLost("another worker observes this chain")
        watched = frozenset(
            session.scalars(
                select(ChangeRequest.app_contract)
                .where(ChangeRequest.chain_id == chain_id, _WATCHED, ChangeRequest.app_contract.in_(contracts))
                .distinct()
            )
        )
        facts = [fact for fact in seen.facts if fact.app_contract in watched]
        news_for = news.spread(session, chain_id, facts, seen.orphaned, final=seen.view.final.number, now=now)
    return Applied(news_for, again=back.again)


def _values(lease: Lease, seen: Observation, contracts: list[str], interval_seconds: float) -> dict[str, Any]:
    return {
        "chain": lease.row_id,
        "taken_fence": lease.fence,
        "was_due": lease.due_at,
        "contracts": contracts,
        "number": seen.cursor.block.number,
        "hash": seen.cursor.block.hash,
        "read": seen.cursor.read_to,
        "left": seen.cursor.gap,
        "head": seen.view.head.number,
        "final": seen.view.final.number,
        "said": seen.detail,
        "seconds": 0.0 if seen.behind and seen.moved else float(interval_seconds),
    }


def fail(database: Database, lease: Lease, *, detail: str, wait_seconds: float) -> None:
    """Give the lease back after a failed observation, with the reason.

    Raises:
        LeaseLost: another worker took over; nothing was written.
    """
    statement = (
        update(ChainCursor)
        .where(held(lease))
        .values(detail=detail, attempts=ChainCursor.attempts + 1, **given_back(due_again(lease, wait_seconds)))
        .returning(ChainCursor.chain_id)
    )
    with database.transaction() as session:
        if session.scalar(statement) is None:
            raise LeaseLost("another worker observes this chain")


def ring_chain(database: Database, chain_id: int) -> None:
    """Make a chain due now: a new block was heard of."""
    database.execute(_RING, {"chain": chain_id})
