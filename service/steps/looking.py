"""Looking at Phala Cloud's operations before anything is repeated."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from service.domain.errors import NotFound, Unauthorized, Unreachable
from service.domain.outcomes import Advance, Facts
from service.domain.phala_facts import Operation, OperationStatus
from service.domain.prepares import TOKEN_LIFETIME
from service.domain.snapshots import ChangeRequest, Intake
from service.domain.states import State
from service.ports import Phala

CLOCKS_DIFFER: Final = timedelta(minutes=15)
"""How far Phala Cloud's clock, by which operations start, may be from ours. Overlooking the operation of a commit that
was accepted would restart the CVM once more."""


def vm_uuid_of(request: ChangeRequest) -> str:
    """The resolved CVM.

    Raises:
        ValueError: not resolved, which the database forbids from ``prepared`` on.
    """
    if request.vm_uuid is None:
        raise ValueError(f"change request {request.id} in state {request.state} has no vm_uuid")
    return request.vm_uuid


def earliest_commit(request: ChangeRequest) -> datetime:
    """No operation that carries out this request can have started earlier.

    That is the minting of its first token: our prepare, or what a webhook said. A token that was handed in can be as
    old as tokens get by then, and its commit link can have been used before. A refresh leaves the first one standing.
    """
    first = _since_known(request) - CLOCKS_DIFFER
    if request.intake is Intake.PREPARED and request.prepared_at is not None:
        return min(first, request.prepared_at - TOKEN_LIFETIME - CLOCKS_DIFFER)
    return first


def _since_known(request: ChangeRequest) -> datetime:
    times = [request.prepared_at, request.prepare_attempted_at]
    if request.token_expires_at is not None:
        times.append(request.token_expires_at - TOKEN_LIFETIME)
    return min((time for time in times if time is not None), default=request.state_entered_at)


def find_operation(request: ChangeRequest, phala: Phala) -> Operation | None:
    """The newest operation with the request's hash that started since its token was minted.

    A failed one counts, too: the commit was taken, and what failed is its run.

    When the token was minted is known up to ``CLOCKS_DIFFER``, and before it was handed in not at all. An operation
    from then counts only if it did not fail and gave the CVM the hash that it has now: no later one brought another.

    Raises:
        Unreachable: it could not be looked for, whatever the cause: not seen is not no.
    """
    with looking():
        operations = phala.operations(vm_uuid_of(request), earliest_commit(request))
    since = _since_known(request)
    ours = next((found for found in operations if found.compose_hash == request.compose_hash), None)
    if ours is None or ours.started_at >= since:
        return ours
    newest = next(found for found in operations if found.compose_hash is not None)
    return ours if newest is ours and ours.status is not OperationStatus.FAILED else None


def adopt_operation(operation: Operation) -> Advance:
    """Go on with an operation that carries out the request, whoever started it."""
    facts = Facts(correlation_id=operation.correlation_id, commit_token=None)
    return Advance(State.COMMITTED, facts, detail="the commit was found by its operation")


@contextmanager
def looking() -> Iterator[None]:
    """Make a refused look a fault that is tried again: it says nothing about what was looked for."""
    try:
        yield
    except (Unauthorized, NotFound) as no:
        raise Unreachable(no.detail, reason=no.reason) from no
