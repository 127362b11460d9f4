"""Waiting before a commit that a gate holds."""

from datetime import datetime

from service.domain.gates import NEEDS_A_PERSON, hold_of
from service.domain.outcomes import Notice, Wait
from service.domain.reasons import ADVICE
from service.domain.snapshots import ChangeRequest


def held(request: ChangeRequest, now: datetime) -> Wait | None:
    """The wait for a gate to open; ``None`` when none holds the commit. What a person must open is told once."""
    hold = hold_of(request.gates, now, attempted=request.commit_attempted_at is not None)
    if hold is None:
        return None
    told = {"by": hold.reason.value, "detail": hold.detail, "advice": ADVICE[hold.reason]}
    is_new = hold.reason in NEEDS_A_PERSON and request.reason is not hold.reason
    return Wait(hold.seconds, hold.reason, hold.detail, notices=((Notice.HELD, told),) if is_new else ())
