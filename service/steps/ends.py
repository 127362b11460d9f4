"""What ends a change request in more than one state."""

import functools
from collections.abc import Callable
from datetime import datetime
from typing import ParamSpec

from service.domain.errors import CvmBusy, NotFound, Refused, Unauthorized
from service.domain.outcomes import Advance, Outcome, stop
from service.domain.reasons import BLOCKS_WORKSPACE, Reason
from service.domain.snapshots import ChangeRequest
from service.domain.states import State

P = ParamSpec("P")


def wished_end(request: ChangeRequest) -> Advance | None:
    """The end that somebody wished, if any."""
    if request.cancel_requested_at is not None:
        return stop(State.CANCELLED, Reason.CANCELLED_BY_USER)
    if request.superseded_by is not None:
        detail = f"change request {request.superseded_by} took its place"
        return stop(State.SUPERSEDED, Reason.SUPERSEDED_BY_REQUEST, detail)
    return None


def ending(request: ChangeRequest, now: datetime) -> Advance | None:
    """The end that a wish or the time brings, if any: unwanted, past its deadline, or its token ended for good."""
    unwanted = wished_end(request)
    if unwanted is not None:
        return unwanted
    if now >= request.deadline_at:
        return stop(State.EXPIRED, Reason.DEADLINE_PASSED, f"the deadline was {request.deadline_at.isoformat()}")
    if token_ended(request, now) and request.patch is None:
        return stop(
            State.EXPIRED, Reason.TOKEN_EXPIRED, "the commit token ended and there is no patch to renew it with"
        )
    return None


def token_ended(request: ChangeRequest, now: datetime) -> bool:
    """Whether the commit token's lifetime is over."""
    return request.token_expires_at is not None and now >= request.token_expires_at


def ends_on_refusal(step: Callable[P, Outcome]) -> Callable[P, Outcome]:
    """Turn a deterministic no that leaves ``step`` into ``failed`` with its reason; everything else passes.

    What only the workspace can repair passes too: its requests wait until it did.
    """

    @functools.wraps(step)
    def run(*args: P.args, **kwargs: P.kwargs) -> Outcome:
        try:
            return step(*args, **kwargs)
        except (Refused, Unauthorized, NotFound, CvmBusy) as no:
            if no.reason in BLOCKS_WORKSPACE:
                raise
            return stop(State.FAILED, no.reason, no.detail)

    return run
