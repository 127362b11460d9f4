"""How the parts of a deployment do, by their signs of life. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

QUEUE_PREFIX: Final = "queue:"
WATCH_PREFIX: Final = "watch:"
SAFE_SERVICE: Final = "safe service"
SAFE_FAULT: Final = "safe service fault"
STALLED_AFTER_SECONDS: Final = 60
"""Four missed round trips of 15 s; a stalled consumer is found after 60 s to 75 s."""
SILENT_AFTER_SECONDS: Final = 150
"""A listener tells of what it hears; a subscription may say nothing for 60 s, or for ten blocks of a slow chain."""
FAULT_COUNTS_SECONDS: Final = 900
"""Who needs the Transaction Service asks again within 10 minutes; later, nobody has needed it."""
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
        name: ``queue:<verb>``, ``worker`` (beat and sweep), ``watch:<chain id>``, ``chain:<id>`` or
            ``safe service:<chain id>``.
        age: seconds since its last sign of life; for a chain since it was read, for a Transaction Service since its
            last fault.
        failed: attempts that failed since the last one that did not.
    """
    if name == "worker" or name.startswith(QUEUE_PREFIX):
        condition = Condition.FAILING if _above(age, STALLED_AFTER_SECONDS) else Condition.OK
        return Part(name, condition, f"last round trip {age or 0:.0f} s ago")
    if name.startswith(WATCH_PREFIX):
        condition = Condition.DEGRADED if _above(age, SILENT_AFTER_SECONDS) else Condition.OK
        return Part(name, condition, f"the listener last heard of it {age or 0:.0f} s ago")
    problem = _of_safe_service(age, failed) if name.startswith(SAFE_SERVICE) else _of_chain(age, failed)
    return Part(name, Condition.OK if problem is None else Condition.DEGRADED, problem or "as it should be")


def workspaces_part(blocked: Mapping[str, int]) -> Part:
    """Workspaces that are blocked, by reason code. They delay nobody else, and are not named: anybody may ask."""
    counted = ", ".join(f"{code}: {count}" for code, count in sorted(blocked.items()))
    return Part("workspaces", Condition.DEGRADED, f"blocked by {counted}; see `countersign workspace list`")


def _of_chain(age: float | None, failed: int) -> str | None:
    if _above(age, STALLED_AFTER_SECONDS):
        return f"not read for {age:.0f} s"
    return f"the last {failed} attempts failed" if failed >= FAILED_LOOKS else None


def _of_safe_service(age: float | None, failed: int) -> str | None:
    counts = failed and not _above(age, FAULT_COUNTS_SECONDS)
    return f"the last call failed {age or 0:.0f} s ago" if counts else None


def _above(age: float | None, limit: float) -> bool:
    return age is not None and age > limit
