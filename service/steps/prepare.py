"""``received``: resolve the CVM, see that its change can be approved, and have Phala Cloud prepare it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from service.domain.errors import Busy, NotFound, Refused, Unreachable
from service.domain.outcomes import Advance, Facts, Notice, Outcome, Wait, stop
from service.domain.patch import moves_hash
from service.domain.phala_facts import AppliedAtOnce, Cvm, Operation, OperationStatus, Prepared
from service.domain.prepares import DOUBT, TOKEN_LIFETIME
from service.domain.reasons import Reason
from service.domain.schedules import step_backoff
from service.domain.snapshots import HANDED_IN, ChangeRequest
from service.domain.states import State
from service.ports import Chain, Clock, Phala, RequestIntents, SafeQueue, Signer
from service.steps.ends import ending, ends_on_refusal
from service.steps.holding import held
from service.steps.preflight import SOME_HASH, app_of, preflight, warn


@ends_on_refusal
def prepare(
    request: ChangeRequest,
    *,
    phala: Phala,
    chains: Mapping[int, Chain],
    queues: Mapping[int, SafeQueue],
    signer: Signer,
    intents: RequestIntents,
    clock: Clock,
) -> Outcome:
    """Serve a request in ``received``; everything that can be refused is refused before the PATCH.

    Raises:
        CountersignError: a retryable fault, or ``LeaseLost``.
    """
    now = clock.now()
    end = ending(request, now)
    if end is not None:
        return end
    cvm = _resolve(request, phala)
    if request.intake in HANDED_IN:
        _compare_with_stored(request, cvm)
    intents.record(_cvm_facts(cvm))
    needs_approval = _needs_approval(request, cvm)
    if needs_approval:
        _check_approvable(request, cvm, chains, queues, signer, intents)
    if request.intake in HANDED_IN:
        # Where nobody said when the token was minted: later than this it is dead for certain.
        expires_at = request.token_expires_at or now + TOKEN_LIFETIME
        return Advance(State.PREPARED, Facts(prepared_at=now, token_expires_at=expires_at))
    if not needs_approval and request.prepare_attempted_at is not None:
        # An earlier attempt without an answer may have been applied: look before applying it twice.
        earlier = _applied_earlier(phala, cvm.vm_uuid, request.prepare_attempted_at)
        if earlier is not None:
            return _applied_at_once(earlier.correlation_id, expected=True)
    wait = None if needs_approval else held(request, now)
    if wait is not None:
        return wait  # what is applied at once is a commit
    attempt = Facts(prepare_attempted_at=request.prepare_attempted_at or now)
    intents.record(attempt, commits=not needs_approval)
    return _send(request, cvm, phala, now, expect_at_once=not needs_approval)


def _applied_earlier(phala: Phala, vm_uuid: str, attempted_at: datetime) -> Operation | None:
    """The operation of an earlier attempt: the first since then, or one that Phala Cloud's clock puts just before.

    Only one that can be the patch: what somebody else did to the CVM must not pass for it. After one that failed the
    patch is sent again.
    """
    operations = [
        found
        for found in phala.operations(vm_uuid, attempted_at - DOUBT)
        if found.is_update and found.status is not OperationStatus.FAILED
    ]
    since = [found for found in operations if found.started_at >= attempted_at]
    return since[-1] if since else next(iter(operations), None)


def _needs_approval(request: ChangeRequest, cvm: Cvm) -> bool:
    if request.intake in HANDED_IN:
        return True
    on_chain = cvm.chain_id is not None and cvm.app_contract is not None
    if on_chain and moves_hash(_patch(request)):
        return True
    if request.allow_without_approval and request.workspace.allow_without_approval:
        return False
    raise Refused(
        "the patch moves no compose hash" if on_chain else "the CVM has no on-chain KMS",
        reason=Reason.APPROVAL_NOT_POSSIBLE,
    )


def _patch(request: ChangeRequest) -> Mapping[str, Any]:
    if request.patch is None:
        raise ValueError(f"change request {request.id} has no patch")
    return request.patch


def _send(request: ChangeRequest, cvm: Cvm, phala: Phala, now: datetime, *, expect_at_once: bool) -> Outcome:
    try:
        answer = phala.prepare(cvm.vm_uuid, _patch(request))
    except Refused as no:
        # Nothing was prepared: what is heard of the CVM since then is not ours.
        unanswered = Facts(prepare_attempted_at=request.prepare_attempted_at)
        return stop(State.FAILED, Reason.PREPARE_REFUSED, no.detail, unanswered)
    except (Busy, Unreachable) as fault:
        if isinstance(fault, Unreachable) and fault.outcome_unknown:
            # Preparing the same patch again reads it back: same hash, fresh token, the older token dead.
            raise
        return Wait(
            step_backoff(request.attempts + 1, fault.retry_after),
            fault.reason,
            fault.detail,
            # An earlier attempt without an answer stays one: it may be what keeps Phala Cloud busy.
            Facts(prepare_attempted_at=request.prepare_attempted_at),
            failed_attempt=True,
        )
    if isinstance(answer, AppliedAtOnce):
        return _applied_at_once(answer.correlation_id, expected=expect_at_once)
    _compare_with_answer(answer, cvm)
    return Advance(
        State.PREPARED,
        Facts(
            device_id=answer.device_id,
            compose_hash=answer.compose_hash,
            commit_token=answer.commit_token.get_secret_value(),
            token_expires_at=now + TOKEN_LIFETIME,
            prepared_at=now,
        ),
    )


def _applied_at_once(correlation_id: str, *, expected: bool) -> Advance:
    facts = Facts(correlation_id=correlation_id)
    if expected:
        return Advance(State.COMMITTED, facts)
    alert = "Phala Cloud applied the change at once, without an approval: the patch moved no compose hash"
    return Advance(
        State.COMMITTED,
        facts,
        detail=alert,
        notices=((Notice.ALERT, {"message": alert, "correlation_id": correlation_id}),),
    )


def _resolve(request: ChangeRequest, phala: Phala) -> Cvm:
    try:
        # Once resolved, a renamed CVM stays the same CVM.
        return phala.cvm(request.vm_uuid or request.cvm_id)
    except (Refused, NotFound) as no:
        raise NotFound(no.detail) from no


def _cvm_facts(cvm: Cvm) -> Facts:
    facts = Facts(vm_uuid=cvm.vm_uuid, cvm_name=cvm.name)
    if cvm.chain_id is not None:
        facts["chain_id"] = cvm.chain_id
    if cvm.app_contract is not None:
        facts["app_contract"] = cvm.app_contract
    if cvm.device_id is not None:
        facts["device_id"] = cvm.device_id
    return facts


def _mismatch(what: str, told: object, expected: object) -> Refused:
    return Refused(f"the prepared update is for {what} {told}, the CVM has {expected}", reason=Reason.PREPARED_MISMATCH)


def _compare_with_stored(request: ChangeRequest, cvm: Cvm) -> None:
    if request.app_contract is not None and request.app_contract != cvm.app_contract:
        raise _mismatch("app contract", request.app_contract, cvm.app_contract)
    if request.chain_id is not None and request.chain_id != cvm.chain_id:
        raise _mismatch("chain", request.chain_id, cvm.chain_id)
    if request.device_id is not None and cvm.device_id not in (None, request.device_id):
        raise _mismatch("device", request.device_id, cvm.device_id)


def _compare_with_answer(answer: Prepared, cvm: Cvm) -> None:
    if answer.app_contract != cvm.app_contract:
        raise _mismatch("app contract", answer.app_contract, cvm.app_contract)
    if answer.chain_id != cvm.chain_id:
        raise _mismatch("chain", answer.chain_id, cvm.chain_id)
    if cvm.device_id not in (None, answer.device_id):
        raise _mismatch("device", answer.device_id, cvm.device_id)


def _check_approvable(
    request: ChangeRequest,
    cvm: Cvm,
    chains: Mapping[int, Chain],
    queues: Mapping[int, SafeQueue],
    signer: Signer,
    intents: RequestIntents,
) -> None:
    if cvm.chain_id is None or cvm.app_contract is None:
        raise Refused("the CVM has no on-chain KMS", reason=Reason.APPROVAL_NOT_POSSIBLE)
    chain, queue = chains.get(cvm.chain_id), queues.get(cvm.chain_id)
    if chain is None or queue is None:
        raise Refused(f"chain {cvm.chain_id} is not configured", reason=Reason.CHAIN_NOT_CONFIGURED)
    head = chain.view().head
    device_id = request.device_id or cvm.device_id
    if request.compose_hash is not None and device_id is None:
        raise Refused("neither the prepared update nor the CVM tells its device", reason=Reason.PREPARED_MISMATCH)
    app = app_of(cvm.app_contract, chain, head)
    compose_hash = request.compose_hash or SOME_HASH
    devices: tuple[str, ...] = ()
    if device_id is not None:
        allowed = chain.allowed(cvm.app_contract, compose_hash, device_id, head)
        if allowed.both:
            return
        devices = () if allowed.device else (device_id,)
    approver = preflight(
        request.workspace,
        cvm.app_contract,
        app,
        compose_hash,
        devices,
        chain=chain,
        queue=queue,
        proposer=signer.address,
        at=head,
    )
    warn(request, approver, chain, intents)
