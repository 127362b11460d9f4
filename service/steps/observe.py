"""One look at a chain, whatever the number of requests that wait for it."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from service.domain.chain import Block, ChainFact, ChainView, Cursor, Observation
from service.ports import Chain

MAX_RANGES: Final = 10
"""Ranges read in one look; a longer gap is caught up over several looks."""

CURSOR_STRIDE: Final = 32
"""Final blocks after which the cursor moves. Moving it costs a request, to see that its own block still stands;
reading a few final blocks again in the same request for logs costs nothing."""

DEEP_REORG_BLOCKS: Final = 1024
"""How far the cursor steps back when a block that had been final is gone."""


def observe(
    chain: Chain,
    cursor: Cursor | None,
    watched: AbstractSet[str],
    known: Sequence[ChainFact],
    max_range: int = 2000,
) -> Observation:
    """Read what happened since the cursor, up to the head; blocks that are not final are read again each time.

    Args:
        chain: the chain.
        cursor: how far it was scanned, ``None`` at first: what came before needs no logs, requests read the state.
        watched: checksummed app contracts whose facts are wanted.
        known: stored facts whose block was not final yet.
        max_range: most blocks in one request for logs.

    Raises:
        CountersignError: a retryable fault; nothing is lost, the cursor did not move.
    """
    view = chain.view()
    start, detail = (Cursor(view.final), None) if cursor is None else _standing(chain, cursor, view)
    first = start.block.number + 1
    last = min(view.head.number, start.block.number + max_range * MAX_RANGES)
    facts = tuple(fact for fact in _scan(chain, first, last, max_range) if fact.app_contract in watched)
    return Observation(
        view=view,
        cursor=_moved(chain, start, view, last),
        facts=facts,
        orphaned=_orphaned(chain, known, facts),
        behind=max(0, view.final.number - max(last, start.block.number)),
        detail=detail,
    )


def _standing(chain: Chain, cursor: Cursor, view: ChainView) -> tuple[Cursor, str | None]:
    """The cursor, or one further back when its own block vanished."""
    number = cursor.block.number
    if view.final.number - number < CURSOR_STRIDE:
        return cursor, None
    if chain.block(number) == cursor.block:
        return cursor, None
    back = chain.block(max(0, number - DEEP_REORG_BLOCKS))
    if back is None:
        return cursor, f"the endpoint does not know block {number}, which was final"
    return Cursor(back), f"block {number} had been final and vanished: scanning again from block {back.number}"


def _scan(chain: Chain, first: int, last: int, max_range: int) -> list[ChainFact]:
    found: list[ChainFact] = []
    for start in range(first, last + 1, max_range):
        found.extend(chain.facts(start, min(start + max_range - 1, last)))
    return found


def _moved(chain: Chain, start: Cursor, view: ChainView, last: int) -> Cursor:
    if view.final.number - start.block.number < CURSOR_STRIDE:
        return start
    if view.final.number <= last:
        return Cursor(view.final)
    reached: Block | None = chain.block(last)
    return start if reached is None else Cursor(reached)


def _orphaned(chain: Chain, known: Sequence[ChainFact], seen: Sequence[ChainFact]) -> tuple[ChainFact, ...]:
    """Known facts whose height now has another block. Absence from the logs alone proves nothing."""
    standing = {fact.block for fact in seen}
    canonical = {number: chain.block(number) for number in {f.block.number for f in known if f.block not in standing}}
    return tuple(fact for fact in known if canonical.get(fact.block.number) not in (None, fact.block))
