"""How the parts of a deployment do, by their signs of life. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

QUEUE_PREFIX: Final = "queue:"
STALLED_AFTER_SECONDS: Final = 60
"""Four missed round trips of 15 s; a stalled consumer is found after 60 s to 75 s."""
FAILED_LOOKS: Final = 3


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


def workspaces_part(blocked: Mapping[str, int]) -> Part:
    """Workspaces that are blocked, by reason code. They delay nobody else, and are not named: anybody may ask."""
    counted = ", ".join(f"{code}: {count}" for code, count in sorted(blocked.items()))
    return Part("workspaces", Condition.DEGRADED, f"blocked by {counted}; see `countersign workspace list`")
