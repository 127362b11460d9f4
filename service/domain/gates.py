"""What may hold the commit of a change request whose approval is final. Pure.

A rollout is one compose hash on one app contract: the change requests of a workspace that one approval serves.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from service.domain.reasons import Reason

HELD_SECONDS: Final = 60.0
"""Until a held request is looked at again, for its deadline and token; whoever opens a gate rings for it."""

QUEUED_SECONDS: Final = 15.0
"""The same for a request that waits for other commits of its app, whose end rings for it."""


MOST_PARALLEL: Final = 1000
"""Commits of an app that a workspace may allow at the same time."""


class CommitPolicy(StrEnum):
    """Whether a commit follows its approval by itself."""

    AUTO = "auto"
    HOLD = "hold"


NEEDS_A_PERSON: Final = frozenset({Reason.COMMITS_FROZEN, Reason.HELD_AFTER_FAILURE, Reason.HELD_FOR_RELEASE})
"""Holds that somebody has to end, and that are told by an event."""


@dataclass(frozen=True, slots=True)
class Freeze:
    """The workspace holds all commits."""

    at: datetime
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Gates:
    """What is known of the gates before a commit.

    Attributes:
        policy: the request's own, else the workspace's.
        not_before: no commit before this time.
        released_at: when somebody released the request last.
        freeze: the workspace's freeze switch, ``None`` while it is off.
        failed: id of a change request of the same rollout whose update failed since this one was made or released.
        in_flight: ids of other change requests of the app contract between their first attempt and their end.
        parallel: how many of an app contract may be in flight.
        removed: whether hash or device was seen to be taken off the allowlist since the approval: it holds nothing, but
            whoever waits has to look.
    """

    policy: CommitPolicy = CommitPolicy.AUTO
    not_before: datetime | None = None
    released_at: datetime | None = None
    freeze: Freeze | None = None
    failed: str | None = None
    in_flight: tuple[str, ...] = ()
    parallel: int = 1
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """A closed gate: why, for people and programs, and after how many seconds to look again."""

    reason: Reason
    detail: str
    seconds: float = HELD_SECONDS


def hold_of(gates: Gates, now: datetime, *, attempted: bool) -> Hold | None:
    """The gate that holds a commit; of several the one that takes longest to open.

    Args:
        gates: see there.
        now: the time.
        attempted: the request attempted its commit before and is in flight: only the freeze holds it still.
    """
    freeze = gates.freeze
    if freeze is not None:
        detail = f"frozen by {freeze.by} at {freeze.at.isoformat()}: {freeze.reason}"
        return Hold(Reason.COMMITS_FROZEN, detail)
    return None if attempted else _before_first(gates, now)


def _before_first(gates: Gates, now: datetime) -> Hold | None:
    """The gate that holds a first attempt."""
    if gates.failed is not None:
        return Hold(Reason.HELD_AFTER_FAILURE, f"the update of change request {gates.failed} failed")
    if gates.policy is CommitPolicy.HOLD and gates.released_at is None:
        return Hold(Reason.HELD_FOR_RELEASE, "the approval is final, nobody released the commit yet")
    if gates.not_before is not None and now < gates.not_before:
        left = (gates.not_before - now).total_seconds()
        return Hold(Reason.WAITING_FOR_TIME, f"not before {gates.not_before.isoformat()}", min(left, HELD_SECONDS))
    if len(gates.in_flight) >= gates.parallel:
        others = ", ".join(gates.in_flight)
        detail = f"at most {gates.parallel} at a time, under way: {others}"
        return Hold(Reason.WAITING_FOR_OTHER_COMMITS, detail, QUEUED_SECONDS)
    return None
