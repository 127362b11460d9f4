"""What the database says about the parts of the deployment: no call to the outside, one statement."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import text

from service.store.database import Database

QUEUE_PREFIX: Final = "queue:"
STALLED_AFTER_SECONDS: Final = 60
"""Four missed round trips of 15 s; a stalled consumer is found after 60 s to 75 s."""
FAILED_LOOKS: Final = 3

# The age of a chain is counted from its last answer, before the first one from when it should have been read.
_PARTS = text(
    """
    SELECT kind AS part, extract(epoch FROM now() - max(seen_at)) AS age, 0 AS failed FROM heartbeats
      WHERE kind LIKE 'queue:%' OR kind = 'worker' GROUP BY kind
    UNION ALL
    SELECT 'chain:' || chain_id, extract(epoch FROM now() - coalesce(looked_at, due_at)), attempts FROM chain_cursors
    UNION ALL
    SELECT 'safe queue:' || chain_id, 0, max(attempts) FROM proposals
      WHERE state IN ('posting', 'queued', 'withdrawing') GROUP BY chain_id
    """
)


class Condition(StrEnum):
    """How a part does. Only ``FAILING`` makes the whole not ready."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Part:
    """A part and how it does; ``detail`` is for people, without anything secret."""

    name: str
    condition: Condition
    detail: str


def look(database: Database) -> list[Part]:
    """Every part that the database knows of, by name."""
    with database.transaction() as session:
        found = session.execute(_PARTS).all()
    parts = [judge(row.part, row.age, row.failed) for row in found]
    if not any(part.name.startswith(QUEUE_PREFIX) for part in parts):
        parts.append(Part("workers", Condition.DEGRADED, "no queue was ever served"))
    return sorted(parts, key=lambda part: part.name)


def judge(name: str, age: float | None, failed: int) -> Part:
    """How a part does.

    Args:
        name: ``queue:<verb>``, ``worker`` (beat and sweep), ``chain:<id>`` or ``safe queue:<chain id>``.
        age: seconds since its last sign of life; for a chain since it was read.
        failed: attempts that failed since the last one that did not.
    """
    late = age is not None and age > STALLED_AFTER_SECONDS
    if name == "worker" or name.startswith(QUEUE_PREFIX):
        condition = Condition.FAILING if late else Condition.OK
        return Part(name, condition, f"last round trip {age or 0:.0f} s ago")
    if late:
        return Part(name, Condition.DEGRADED, f"not read for {age:.0f} s")
    if failed >= FAILED_LOOKS:
        return Part(name, Condition.DEGRADED, f"the last {failed} attempts failed")
    return Part(name, Condition.OK, "as it should be")
