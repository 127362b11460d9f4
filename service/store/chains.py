"""How far each chain was read, for people."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.store.tables import ChainCursor


@dataclass(frozen=True, slots=True)
class ChainProgress:
    """One chain as its last looks left it. What an endpoint said is not in here: it may quote an URL.

    Attributes:
        head: highest block that was seen.
        final: highest final block that was seen.
        read_to: everything up to this final block was read.
        gap: final blocks there were to catch up with when that began, ``None`` when nothing is behind.
        failed_looks: how many failed since the last that did not.
        looked_at: when the last look that did not fail ended.
        age_seconds: how long ago that was, by the database's clock.
    """

    chain_id: int
    head: int | None
    final: int | None
    read_to: int | None
    gap: int | None
    failed_looks: int
    looked_at: datetime | None
    age_seconds: float | None


def progress(session: Session, chain_ids: Collection[int]) -> Sequence[ChainProgress]:
    """How far those chains were read, by id; one that no worker knows yet is left out."""
    age = func.extract("epoch", func.clock_timestamp() - ChainCursor.looked_at)
    statement = select(ChainCursor, age).where(ChainCursor.chain_id.in_(chain_ids)).order_by(ChainCursor.chain_id)
    return [
        _progress(cursor, None if cursor.looked_at is None else float(seconds))
        for cursor, seconds in session.execute(statement)
    ]


def _progress(cursor: ChainCursor, age_seconds: float | None) -> ChainProgress:
    return ChainProgress(
        chain_id=cursor.chain_id,
        head=cursor.head_number,
        final=cursor.final_number,
        read_to=cursor.block_number if cursor.read_to is None else cursor.read_to,
        gap=cursor.gap,
        failed_looks=cursor.attempts,
        looked_at=cursor.looked_at,
        age_seconds=age_seconds,
    )
