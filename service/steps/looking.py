"""Looking at Phala Cloud's operations before anything is repeated."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from service.domain.errors import NotFound, Unauthorized, Unreachable
from service.domain.phala_facts import Operation
from service.domain.snapshots import ChangeRequest
from service.ports import Phala
from service.steps.ends import TOKEN_LIFETIME

CLOCK_SKEW: Final = timedelta(seconds=5)
"""How far Phala Cloud's clock may be behind ours."""


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

    That is the minting of its first token: our prepare, or 14 days before the end of a token that was handed in (its
    commit link can be used before the request is). A refresh leaves the first one standing.
    """
    times = [request.prepared_at, request.prepare_attempted_at]
    if request.token_expires_at is not None:
        times.append(request.token_expires_at - TOKEN_LIFETIME)
    return min((time for time in times if time is not None), default=request.state_entered_at) - CLOCK_SKEW


def find_operation(request: ChangeRequest, phala: Phala) -> Operation | None:
    """The newest operation with the request's hash that started since its token was minted.

    Raises:
        Unreachable: it could not be looked for, whatever the cause: not seen is not no.
    """
    with looking():
        operations = phala.operations(vm_uuid_of(request), earliest_commit(request))
    return next((found for found in operations if found.compose_hash == request.compose_hash), None)


@contextmanager
def looking() -> Iterator[None]:
    """Make a refused look a fault that is tried again: it says nothing about what was looked for."""
    try:
        yield
    except (Unauthorized, NotFound) as no:
        raise Unreachable(no.detail, reason=no.reason) from no
