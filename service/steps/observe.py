"""One look at a chain, whatever the number of requests that wait for it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from service.domain.chain import Block, ChainFact, ChainView, Cursor, Observation
from service.ports import Chain

MAX_RANGES: Final = 10
"""Ranges read in one look; a longer gap is caught up over several looks."""

CURSOR_STRIDE: Final = 32
"""Final blocks after which the cursor's block moves. Before it does, it is seen to stand, and everything above it is
read once more."""

LOOKED_AT_WITHIN: Final = 8
"""Final blocks before that when the cursor's block begins to come with each view; after a longer leap of the final
block it costs a request of its own."""

READ_AGAIN: Final = 4
"""Final blocks that each look reads again, besides all that are not final: behind one URL the node that answers for
logs may be behind the one that tells the head."""

DEEP_REORG_BLOCKS: Final = 1024
"""How far the cursor steps back when a block that had been final is gone."""


def observe(chain: Chain, cursor: Cursor | None, known: Sequence[ChainFact], max_range: int = 2000) -> Observation:
    """Read what happened since the cursor, up to the head; blocks that are not final are read again each time.

    Args:
        chain: the chain.
        cursor: how far it was scanned, ``None`` at first: what came before needs no logs, requests read the state.
        known: stored facts above the cursor's block.
        max_range: most blocks in one request for logs.

    Raises:
        CountersignError: a retryable fault; nothing is lost, the cursor did not move.
    """
    view = chain.view(_looked_at_soon(cursor), None if cursor is None else _read_again_above(cursor))
    start, detail = (Cursor(view.final), None) if cursor is None else _standing(chain, cursor, view)
    below = _read_again_above(start)
    last = min(view.head.number, below + max_range * MAX_RANGES)
    facts = _came_along(cursor, view, below, last)
    if facts is None:
        facts = tuple(_scan(chain, below + 1, last, max_range))
    moved = _moved(chain, start, view, last)
    behind = max(0, view.final.number - moved.read)
    gap = max(start.gap or 0, view.final.number - start.read) if behind else None
    return Observation(
        view=view,
        cursor=replace(moved, gap=gap),
        facts=tuple(fact for fact in facts if fact not in known),
        orphaned=_orphaned(chain, [fact for fact in known if fact.block.number > below], facts),
        behind=behind,
        moved=moved != start,
        detail=detail or (f"catching up: {behind:,} of {gap:,} blocks left" if behind else None),
    )


def _looked_at_soon(cursor: Cursor | None) -> int | None:
    """The height of the cursor's block when it is about to be looked at."""
    if cursor is None or cursor.read - cursor.block.number < CURSOR_STRIDE - LOOKED_AT_WITHIN:
        return None
    return cursor.block.number


def _standing(chain: Chain, cursor: Cursor, view: ChainView) -> tuple[Cursor, str | None]:
    """The cursor to read on from: itself, its block alone when that had to be looked at, or one further back."""
    number = cursor.block.number
    if view.final.number - number < CURSOR_STRIDE:
        return cursor, None
    if cursor.block == (view.also or chain.block(number)):
        return replace(cursor, read_to=None), None
    back = chain.block(max(0, number - DEEP_REORG_BLOCKS))
    if back is None:
        return cursor, f"the endpoint does not know block {number}, which was final"
    return Cursor(back), f"block {number} had been final and vanished: scanning again from block {back.number}"


def _read_again_above(start: Cursor) -> int:
    return max(start.block.number, start.read - READ_AGAIN)


def _came_along(cursor: Cursor | None, view: ChainView, below: int, last: int) -> tuple[ChainFact, ...] | None:
    """The logs that came with the view, if they are all that are to be read."""
    if view.facts is None or cursor is None or below < _read_again_above(cursor) or last < view.head.number:
        return None
    return tuple(fact for fact in view.facts if fact.block.number > below)


def _scan(chain: Chain, first: int, last: int, max_range: int) -> list[ChainFact]:
    found: list[ChainFact] = []
    for start in range(first, last + 1, max_range):
        found.extend(chain.facts(start, min(start + max_range - 1, last)))
    return found


def _moved(chain: Chain, start: Cursor, view: ChainView, last: int) -> Cursor:
    if view.final.number - start.block.number < CURSOR_STRIDE:
        read = min(last, view.final.number)
        return replace(start, read_to=read) if read > start.read else start
    if view.final.number <= last:
        return Cursor(view.final)
    reached: Block | None = chain.block(last)
    return start if reached is None else Cursor(reached)


def _orphaned(chain: Chain, known: Sequence[ChainFact], seen: Sequence[ChainFact]) -> tuple[ChainFact, ...]:
    """Known facts whose height now has another block. Absence from the logs alone proves nothing."""
    if not known:
        return ()
    standing = {fact.block for fact in seen}
    canonical = {number: chain.block(number) for number in {f.block.number for f in known if f.block not in standing}}
    return tuple(fact for fact in known if canonical.get(fact.block.number) not in (None, fact.block))
