"""A request at its commit, and what may come of it."""

from dataclasses import replace

from service.domain.errors import (
    Nonsense,
)
from service.domain.outcomes import Advance, Outcome
from service.domain.reasons import Reason
from service.domain.snapshots import ChangeRequest
from service.domain.states import State
from tests.support.builders import NOW

TRANSACTION = "0x" + "aa" * 32
ADOPTED = "the commit was found by its operation"


def unanswered(request: ChangeRequest, **overrides: object) -> ChangeRequest:
    columns = {"commit_attempt_id": "attempt-0", "commit_attempted_at": NOW}
    return replace(request, **{**columns, **overrides})  # type: ignore[arg-type]  # parametrised columns


def committed(correlation_id: str, detail: str | None = None) -> Advance:
    return Advance(State.COMMITTED, {"correlation_id": correlation_id, "commit_token": None}, detail=detail)


def cut_off() -> Nonsense:
    return Nonsense("cut off", reason=Reason.PHALA_UNREACHABLE)


def assert_ended(outcome: Outcome, state: State, reason: Reason) -> None:
    assert isinstance(outcome, Advance)
    assert (outcome.to, outcome.reason) == (state, reason)
