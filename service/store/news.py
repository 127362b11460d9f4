"""Chain facts as they come in, and the doorbell for everybody whom they or a new final block concern."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Select, or_, select, tuple_, union, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.domain.chain import ChainFact, FactKind
from service.domain.states import State
from service.store import leases, tables
from service.store.columns import plain
from service.store.tables import ChangeRequest

_OF_HASH = frozenset({FactKind.HASH_ADDED, FactKind.HASH_REMOVED})
_OF_DEVICE = frozenset({FactKind.DEVICE_ADDED, FactKind.DEVICE_REMOVED})
_MAY_TAKE_AWAY = frozenset({FactKind.HASH_REMOVED, FactKind.DEVICE_REMOVED, FactKind.ANY_DEVICE_SET})
_BEFORE_FINAL = [state.value for state in (State.PREPARED, State.PROPOSED, State.EXECUTED)]
_WAITING = [*_BEFORE_FINAL, State.REGISTERED.value]


def spread(
    session: Session,
    chain_id: int,
    facts: Sequence[ChainFact],
    orphaned: Sequence[ChainFact],
    *,
    final: int,
    now: datetime,
) -> Sequence[tuple[str, State]]:
    """Store facts, mark those whose block vanished, and ring for whom that is news, or the new final block.

    What was allowed at a final block is rung for only when it may have been taken away again.

    Returns:
        The change requests that were made due, with their states.
    """
    added = _insert(session, chain_id, facts)
    gone = [fact for fact in orphaned if _orphan(session, chain_id, fact, now)]
    wanted = [select(ChangeRequest.id).where(*became_final(chain_id, final))]
    if added or gone:
        wanted.append(_waiting_for(chain_id, [*added, *gone], _BEFORE_FINAL))
    taken_away = [fact for fact in added if fact.kind in _MAY_TAKE_AWAY] + gone
    if taken_away:
        wanted.append(_waiting_for(chain_id, taken_away, [State.REGISTERED.value]))
    waiting = ChangeRequest.state.in_(_WAITING)
    rung = leases.ring(session, ChangeRequest, waiting, ChangeRequest.id.in_(union(*wanted)))
    return sorted((request_id, State(state)) for request_id, state in rung)


def _insert(session: Session, chain_id: int, facts: Sequence[ChainFact]) -> list[ChainFact]:
    """Store facts; those that are news."""
    by_log = {(fact.transaction_hash, fact.block.hash, fact.log_index): fact for fact in facts}
    if not by_log:
        return []
    columns = [_columns(chain_id, fact) for fact in by_log.values()]
    # A block that vanished may come back: its facts count again.
    revived = (
        insert(tables.ChainFact)
        .on_conflict_do_update(
            index_elements=["chain_id", "transaction_hash", "block_hash", "log_index"],
            set_={"orphaned_at": None},
            where=tables.ChainFact.orphaned_at.is_not(None),
        )
        .returning(tables.ChainFact.transaction_hash, tables.ChainFact.block_hash, tables.ChainFact.log_index)
    )
    return [by_log[transaction, block, index] for transaction, block, index in session.execute(revived, columns)]


def _columns(chain_id: int, fact: ChainFact) -> dict[str, object]:
    return {
        "chain_id": chain_id,
        "app_contract": fact.app_contract,
        "kind": fact.kind.value,
        "value": fact.value,
        "transaction_hash": fact.transaction_hash,
        "block_hash": fact.block.hash,
        "block_number": fact.block.number,
        "log_index": fact.log_index,
    }


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


def became_final(
    chain_id: int | ColumnElement[int], final: int | ColumnElement[int]
) -> tuple[ColumnElement[bool], ...]:
    """Conditions that the evidence of a change request is in a block that is final now."""
    return (
        ChangeRequest.chain_id == chain_id,
        ChangeRequest.state == plain(State.EXECUTED)[0],
        ChangeRequest.evidence_block_number <= final,
        ChangeRequest.attempts == 0,  # one that failed keeps its back-off: the next tick is no news
    )


def _waiting_for(chain_id: int, facts: Sequence[ChainFact], states: Sequence[str]) -> Select[str]:
    return select(ChangeRequest.id).where(
        ChangeRequest.chain_id == chain_id,
        ChangeRequest.state.in_(states),
        ChangeRequest.app_contract.in_({fact.app_contract for fact in facts}),
        _concerned(facts),
    )


def _concerned(facts: Sequence[ChainFact]) -> ColumnElement[bool]:
    """Whom facts are news for: a hash for its requests, a device for its, the switch for the whole app."""
    hashes = {(fact.app_contract, fact.value) for fact in facts if fact.kind in _OF_HASH}
    devices = {(fact.app_contract, fact.value) for fact in facts if fact.kind in _OF_DEVICE}
    switched = {fact.app_contract for fact in facts if fact.kind is FactKind.ANY_DEVICE_SET}
    return or_(
        tuple_(ChangeRequest.app_contract, ChangeRequest.compose_hash).in_(hashes),
        tuple_(ChangeRequest.app_contract, ChangeRequest.device_id).in_(devices),
        ChangeRequest.app_contract.in_(switched),
    )
