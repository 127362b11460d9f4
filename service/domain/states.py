"""The life of a change request: its states and every edge between them.

This table is the only place that says which state may follow which. ``service.store.transitions`` is the only writer
of a state, and it refuses an edge that is not named here. ``docs/architecture.md`` draws its diagram from it.
"""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """State of a change request, in the order of the main line, then the other ends."""

    RECEIVED = "received"
    PREPARED = "prepared"
    PROPOSED = "proposed"
    EXECUTED = "executed"
    REGISTERED = "registered"
    COMMITTED = "committed"
    COMPLETED = "completed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"
    FAILED = "failed"


MEANINGS: dict[State, str] = {
    State.RECEIVED: "stored, nothing called yet",
    State.PREPARED: "compose hash and commit token held",
    State.PROPOSED: "waiting for the Safe's owners",
    State.EXECUTED: "approval seen on chain, not final yet",
    State.REGISTERED: "approval final: hash and device are allowed",
    State.COMMITTED: "Phala Cloud accepted the update",
    State.COMPLETED: "the CVM runs the approved hash",
    State.REJECTED: "the owners executed a rejection",
    State.EXPIRED: "the deadline passed or the commit token ended",
    State.SUPERSEDED: "a newer prepare with another hash took its place",
    State.CANCELLED: "cancelled on request",
    State.FAILED: "ended with a reason code",
}

SERVED_BY: dict[State, str] = {
    State.RECEIVED: "prepare",
    State.PREPARED: "propose",
    State.PROPOSED: "await",
    State.EXECUTED: "await",
    State.REGISTERED: "commit",
    State.COMMITTED: "track",
}
"""The verb that serves each live state: the name of its step and of its queue, and of whom events say did it."""

TERMINAL = frozenset(
    {
        State.COMPLETED,
        State.REJECTED,
        State.EXPIRED,
        State.SUPERSEDED,
        State.CANCELLED,
        State.FAILED,
    }
)
LIVE = frozenset(State) - TERMINAL
HOLDS_CVM = LIVE - {State.COMMITTED}
"""States in which a change request is the only one of its CVM."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One allowed step from a state to another, and when it is taken."""

    source: State
    target: State
    when: str


def _ends(source: State, *targets: tuple[State, str]) -> list[Edge]:
    return [Edge(source, target, when) for target, when in targets]


_CANCELLED = (State.CANCELLED, "cancel was asked for before a commit attempt")
_EXPIRED = (State.EXPIRED, "its deadline passed or its token ended for good")
_APPLIED = (State.COMMITTED, "applied already: by its commit link, or at once when its token was renewed")
_SUPERSEDED = (State.SUPERSEDED, "a newer prepare of the CVM has another hash")

EDGES: tuple[Edge, ...] = (
    Edge(State.RECEIVED, State.PREPARED, "Phala Cloud answered 465: hash and token"),
    Edge(State.RECEIVED, State.COMMITTED, "Phala Cloud answered 2xx: applied at once"),
    *_ends(
        State.RECEIVED,
        _CANCELLED,
        _EXPIRED,
        _SUPERSEDED,
        (State.FAILED, "refused before or by the prepare"),
    ),
    Edge(State.PREPARED, State.PROPOSED, "the proposal waits for its approval"),
    Edge(State.PREPARED, State.EXECUTED, "already allowed, not yet at a final block"),
    Edge(State.PREPARED, State.REGISTERED, "already allowed at a final block"),
    *_ends(
        State.PREPARED,
        _CANCELLED,
        _EXPIRED,
        _SUPERSEDED,
        _APPLIED,
        (State.FAILED, "the Safe or the app contract cannot approve it"),
    ),
    Edge(State.PROPOSED, State.EXECUTED, "hash and device seen on chain, by any route"),
    Edge(State.PROPOSED, State.REJECTED, "the owners executed a rejection at its nonce"),
    *_ends(
        State.PROPOSED,
        _CANCELLED,
        _EXPIRED,
        _SUPERSEDED,
        _APPLIED,
        (State.FAILED, "the proposal cannot be carried on"),
    ),
    Edge(State.EXECUTED, State.PREPARED, "reorg: the block of the approval vanished"),
    Edge(State.EXECUTED, State.REGISTERED, "final, and allowed at a final block"),
    *_ends(
        State.EXECUTED,
        _CANCELLED,
        _EXPIRED,
        _SUPERSEDED,
        _APPLIED,
        (State.FAILED, "approval withdrawn: not allowed at a final block"),
    ),
    Edge(State.REGISTERED, State.COMMITTED, "Phala Cloud accepted the commit"),
    *_ends(
        State.REGISTERED,
        _CANCELLED,
        _EXPIRED,
        _SUPERSEDED,
        (State.FAILED, "approval withdrawn or commit refused for good"),
    ),
    Edge(State.COMMITTED, State.COMPLETED, "the CVM runs the approved hash"),
    Edge(State.COMMITTED, State.FAILED, "the operation failed, or another hash runs, or none in time"),
)

TRANSITIONS: dict[State, frozenset[State]] = {
    state: frozenset(edge.target for edge in EDGES if edge.source is state) for state in State
}


def may_follow(source: State, target: State) -> bool:
    """Whether the table has an edge from ``source`` to ``target``."""
    return target in TRANSITIONS[source]
