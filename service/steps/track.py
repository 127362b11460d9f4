"""``committed``: follow the operation until the CVM itself runs the approved hash."""

from datetime import datetime, timedelta
from typing import Final

from service.domain.errors import NotFound, Unauthorized, Unreachable
from service.domain.outcomes import Advance, Facts, Outcome, Wait, stop
from service.domain.phala_facts import Operation, OperationStatus, Running
from service.domain.reasons import Reason
from service.domain.snapshots import ChangeRequest
from service.domain.states import State
from service.ports import Clock, Phala
from service.steps.looking import earliest_commit, vm_uuid_of

_UNLISTED: Final = timedelta(seconds=30)
"""How long an operation may be missing from the list before what runs counts without it."""

_PERSISTS: Final = timedelta(seconds=30)
"""How long a CVM must attest another hash before that is believed."""

_LONGEST_PAUSE_SECONDS: Final = 15.0


def track(request: ChangeRequest, *, phala: Phala, clock: Clock, poll_seconds: float = 2.0) -> Outcome:
    """Serve a request in ``committed``. Evidence comes before the deadline: what runs in time is seen late, too.

    Args:
        request: the snapshot.
        phala: Phala Cloud with the workspace's key.
        clock: the time.
        poll_seconds: the first pause; pauses grow with the time since the commit to 15 s.

    Raises:
        CountersignError: a retryable fault.
    """
    now = clock.now()
    vm_uuid = vm_uuid_of(request)
    other_since: datetime | None = None
    try:
        operation = _operation(request, phala, vm_uuid)
        if operation is not None and operation.status is OperationStatus.FAILED:
            return stop(State.FAILED, Reason.OPERATION_FAILED, operation.error)
        if request.compose_hash is None:
            verdict, seen = _by_operation(operation), "no hash to compare"
        else:
            running = phala.running(vm_uuid)
            verdict, seen = _by_running(request, running, operation, now), _describe(running)
            other_since = _other_since(request, running, operation, now)
    except (Unauthorized, NotFound) as no:
        # The update was accepted: a lost key says nothing about it.
        if now >= _deadline(request):
            return stop(State.FAILED, no.reason, no.detail)
        raise Unreachable(no.detail, reason=no.reason) from no
    except Unreachable as fault:
        # Not seen is not a no; but the request's own deadline ends every wait.
        if now >= max(_deadline(request), request.deadline_at):
            return stop(State.FAILED, Reason.NOT_RUNNING_IN_TIME, f"what runs could not be seen: {fault.detail}")
        raise
    if verdict is not None:
        return verdict
    status = "not listed" if operation is None else operation.status
    detail = f"operation {status}, {seen}"
    if now >= _deadline(request):
        return stop(State.FAILED, Reason.NOT_RUNNING_IN_TIME, detail)
    facts = Facts() if other_since == request.other_hash_since else Facts(other_hash_since=other_since)
    return Wait(_pause(request, now, poll_seconds), Reason.WAITING_FOR_CVM, detail, facts)


def _operation(request: ChangeRequest, phala: Phala, vm_uuid: str) -> Operation | None:
    operations = phala.operations(vm_uuid, earliest_commit(request))
    return next((found for found in operations if found.correlation_id == request.correlation_id), None)


def _settled(request: ChangeRequest, operation: Operation | None, now: datetime) -> bool:
    if operation is None:
        return now >= request.state_entered_at + _UNLISTED
    return operation.status is OperationStatus.COMPLETED


def _by_operation(operation: Operation | None) -> Advance | None:
    """The verdict on a change that was applied at once, whose hash nobody told."""
    if operation is not None and operation.status is OperationStatus.COMPLETED:
        return Advance(State.COMPLETED, Facts(running_evidence="operation"))
    return None


def _by_running(request: ChangeRequest, running: Running, operation: Operation | None, now: datetime) -> Advance | None:
    if not _settled(request, operation, now):
        return None
    if running.attested_hash == request.compose_hash:
        return Advance(State.COMPLETED, Facts(running_evidence="attestation"))
    silent = running.attested_hash is None
    if silent and running.reported_hash == request.compose_hash and running.status == "running":
        return Advance(State.COMPLETED, Facts(running_evidence="cvm_info"))
    since = _other_since(request, running, operation, now)
    if since is not None and now >= min(since + _PERSISTS, _deadline(request)):
        return stop(State.FAILED, Reason.OTHER_HASH_RUNNING, f"the CVM attests {running.attested_hash}")
    return None


def _other_since(
    request: ChangeRequest, running: Running, operation: Operation | None, now: datetime
) -> datetime | None:
    """Since when the CVM attests another hash although its operation is over. One look may be at a stale answer."""
    over = operation is not None and operation.status is OperationStatus.COMPLETED
    if not over or running.attested_hash in (None, request.compose_hash):
        return None
    return request.other_hash_since or now


def _describe(running: Running) -> str:
    return f"CVM {running.status}, attests {running.attested_hash or 'nothing'}"


def _deadline(request: ChangeRequest) -> datetime:
    return request.state_entered_at + timedelta(seconds=request.workspace.run_deadline_seconds)


def _pause(request: ChangeRequest, now: datetime, poll_seconds: float) -> float:
    elapsed = (now - request.state_entered_at).total_seconds()
    return max(poll_seconds, min(elapsed / 4, _LONGEST_PAUSE_SECONDS))
