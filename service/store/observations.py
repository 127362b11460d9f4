"""Chain facts and cursors, and the doorbell for everything that a new fact or a new final block concerns."""

from datetime import datetime

from sqlalchemy import ColumnElement, func, or_, select, tuple_, union, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.domain.chain import Block, ChainFact, Cursor, FactKind, Observation
from service.domain.errors import LeaseLost
from service.domain.states import State
from service.store import leases, snapshots, tables
from service.store.database import Database
from service.store.leases import Lease, due_again, given_back, held
from service.store.tables import ChainCursor, ChangeRequest

_WATCHED = [state.value for state in (State.PREPARED, State.PROPOSED, State.EXECUTED, State.REGISTERED)]
_OF_HASH = frozenset({FactKind.HASH_ADDED, FactKind.HASH_REMOVED})
_OF_DEVICE = frozenset({FactKind.DEVICE_ADDED, FactKind.DEVICE_REMOVED})
_BEFORE_FINAL = [state.value for state in (State.PREPARED, State.PROPOSED, State.EXECUTED)]


def ensure_chains(database: Database, chain_ids: list[int]) -> None:
    """Have a cursor row for each configured chain, due now."""
    with database.transaction() as session:
        for chain_id in chain_ids:
            session.execute(insert(ChainCursor).values(chain_id=chain_id, due_at=func.now()).on_conflict_do_nothing())


def load(database: Database, chain_id: int) -> tuple[Cursor | None, frozenset[str], tuple[ChainFact, ...]]:
    """Cursor, watched app contracts, and the facts above the cursor that were not orphaned."""
    with database.transaction() as session:
        row = session.get_one(ChainCursor, chain_id)
        cursor = None
        if row.block_number is not None and row.block_hash is not None:
            cursor = Cursor(Block(row.block_number, row.block_hash))
        watched = session.scalars(
            select(ChangeRequest.app_contract)
            .where(ChangeRequest.chain_id == chain_id, ChangeRequest.state.in_(_WATCHED))
            .distinct()
        )
        facts = session.scalars(
            select(tables.ChainFact).where(
                tables.ChainFact.chain_id == chain_id,
                tables.ChainFact.orphaned_at.is_(None),
                tables.ChainFact.block_number > (row.block_number or 0),
            )
        )
        return cursor, frozenset(a for a in watched if a), tuple(map(snapshots.chain_fact, facts))


def apply(database: Database, lease: Lease, seen: Observation, *, interval_seconds: float, now: datetime) -> int:
    """Store what an observation brought and ring for the change requests it concerns.

    Returns:
        How many change requests were made due.

    Raises:
        LeaseLost: another worker took over; nothing was written.
    """
    chain_id = int(lease.row_id)
    with database.transaction() as session:
        updated = session.execute(
            update(ChainCursor)
            .where(held(lease))
            .values(
                block_number=seen.cursor.block.number,
                block_hash=seen.cursor.block.hash,
                head_number=seen.view.head.number,
                final_number=seen.view.final.number,
                detail=seen.detail,
                attempts=0,
                **given_back(due_again(lease, 0 if seen.behind else interval_seconds)),
            )
            .returning(ChainCursor.chain_id)
        ).one_or_none()
        if updated is None:
            raise LeaseLost("another worker observes this chain")
        changed = [fact for fact in seen.facts if _insert(session, chain_id, fact)]
        changed += [fact for fact in seen.orphaned if _orphan(session, chain_id, fact, now)]
        return _ring(session, chain_id, changed, seen.view.final.number)


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
    with database.transaction() as session:
        leases.ring(session, ChainCursor, ChainCursor.chain_id == chain_id)


def _insert(session: Session, chain_id: int, fact: ChainFact) -> bool:
    values = {
        "chain_id": chain_id,
        "app_contract": fact.app_contract,
        "kind": fact.kind.value,
        "value": fact.value,
        "transaction_hash": fact.transaction_hash,
        "block_hash": fact.block.hash,
        "block_number": fact.block.number,
        "log_index": fact.log_index,
    }
    statement = insert(tables.ChainFact).values(values)
    # A block that vanished may come back: its facts count again.
    revived = statement.on_conflict_do_update(
        index_elements=["chain_id", "transaction_hash", "block_hash", "log_index"],
        set_={"orphaned_at": None},
        where=tables.ChainFact.orphaned_at.is_not(None),
    ).returning(tables.ChainFact.id)
    return session.scalars(revived).one_or_none() is not None


def _orphan(session: Session, chain_id: int, fact: ChainFact, now: datetime) -> bool:
    statement = (
        update(tables.ChainFact)
        .where(
            tables.ChainFact.chain_id == chain_id,
            tables.ChainFact.transaction_hash == fact.transaction_hash,
            tables.ChainFact.block_hash == fact.block.hash,
            tables.ChainFact.log_index == fact.log_index,
            tables.ChainFact.orphaned_at.is_(None),
        )
        .values(orphaned_at=now)
        .returning(tables.ChainFact.id)
    )
    return session.scalars(statement).one_or_none() is not None


def _ring(session: Session, chain_id: int, changed: list[ChainFact], final: int) -> int:
    """Ring for whom new facts and the new final block concern, without a look at all the others that wait."""
    became_final = select(ChangeRequest.id).where(
        ChangeRequest.chain_id == chain_id,
        ChangeRequest.state == State.EXECUTED.value,
        ChangeRequest.evidence_block_number <= final,
        ChangeRequest.attempts == 0,  # one that failed keeps its back-off: the next tick is no news
    )
    concerned = select(ChangeRequest.id).where(
        ChangeRequest.chain_id == chain_id,
        ChangeRequest.state.in_(_BEFORE_FINAL),
        ChangeRequest.app_contract.in_({fact.app_contract for fact in changed}),
        _concerned(changed),
    )
    wanted = union(became_final, concerned) if changed else became_final
    waiting = ChangeRequest.state.in_(_BEFORE_FINAL)
    return len(leases.ring(session, ChangeRequest, waiting, ChangeRequest.id.in_(wanted)))


def _concerned(changed: list[ChainFact]) -> ColumnElement[bool]:
    """Whom facts are news for: a hash for its requests, a device for its, the switch for the whole app."""
    hashes = {(fact.app_contract, fact.value) for fact in changed if fact.kind in _OF_HASH}
    devices = {(fact.app_contract, fact.value) for fact in changed if fact.kind in _OF_DEVICE}
    switched = {fact.app_contract for fact in changed if fact.kind is FactKind.ANY_DEVICE_SET}
    return or_(
        tuple_(ChangeRequest.app_contract, ChangeRequest.compose_hash).in_(hashes),
        tuple_(ChangeRequest.app_contract, ChangeRequest.device_id).in_(devices),
        ChangeRequest.app_contract.in_(switched),
    )
