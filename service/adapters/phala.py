import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from pydantic import SecretStr

from service.adapters.http import one_line
from service.adapters.phala_faults import phala_faults
from service.domain.errors import Nonsense, NotFound, Refused, Unauthorized
from service.domain.hexes import address, bytes32
from service.domain.phala_facts import (
    AppliedAtOnce,
    Cvm,
    Hook,
    HookDelivery,
    Operation,
    OperationStatus,
    PendingUpdate,
    Prepared,
    Running,
)
from service.domain.reasons import Reason
from service.phala import PhalaCloud
from service.phala.models.attestation import CvmAttestation
from service.phala.models.cvm import CvmInfo, CvmOperation
from service.phala.models.updates import PatchPrepared
from service.phala.models.webhooks import WebhookDelivery
from service.phala.two_phase import PATCH_MEMBERS

T = TypeVar("T")
_PAGE: Final = 100
_OPERATIONS: Final = 1000
_DELIVERY_PAGES: Final = 50
_UPDATES: Final = ("update", "upgrade", "resize")
"""In the type of an operation that can be a patch's: `compose_update`, `resize`; others are `power_on` and the like."""
_CORRELATION_ID: Final = 200
_SUCCESS: Final = 2


class PhalaAdapter:
    """The ``Phala`` port over the Phala Cloud client, with the key of one workspace.

    Args:
        client: its ``timeout`` is that of every call here.
    """

    def __init__(self, client: PhalaCloud) -> None:
        self._client = client

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def cvm(self, cvm_id: str) -> Cvm:
        """Resolve an identifier in any form Phala Cloud knows.

        Raises:
            NotFound: it names no CVM of this workspace.
            Refused: it names several, or can be no identifier.
        """
        with phala_faults(Reason.CVM_NOT_FOUND):
            return _cvm(self._client.get_cvm_info(id=cvm_id))

    def prepare(self, vm_uuid: str, patch: Mapping[str, Any]) -> Prepared | AppliedAtOnce:
        """PATCH with ``X-Prepare-Only``; kills the CVM's earlier token.

        Args:
            vm_uuid: dashed.
            patch: members of ``patchCvm``.

        Raises:
            Refused: Phala Cloud says no, or the patch has another member.
        """
        unknown = sorted(set(patch) - set(PATCH_MEMBERS))  # "id" or "name" would name another CVM
        if unknown:
            raise Refused(one_line(f"no field of a patch: {', '.join(unknown)}"), reason=Reason.PREPARE_REFUSED)
        with phala_faults(Reason.PREPARE_REFUSED):
            answer = self._client.patch_cvm(prepare_only=True, id=vm_uuid, **patch)
        if isinstance(answer, PatchPrepared):
            return _prepared(answer)
        return AppliedAtOnce(_correlation_id(answer.correlation_id))

    def commit(self, vm_uuid: str, token: SecretStr, compose_hash: str, transaction_hash: str) -> str:
        """Commit the prepared update; the correlation id.

        Args:
            vm_uuid: dashed.
            token: spent by success.
            compose_hash: ``0x``-prefixed bytes32; goes out bare, as the commit token's own URL has it.
            transaction_hash: ``0x``-prefixed, or ``already-registered``.

        Raises:
            NotVisibleYet: 465, 467, 468.
            TokenDead: 466, or what older servers said instead.
            Refused: another deterministic no.
        """
        with phala_faults(Reason.COMMIT_REFUSED, commit=True):
            accepted = self._client.commit_cvm_update(
                id=vm_uuid, token=token, compose_hash=compose_hash[2:], transaction_hash=transaction_hash
            )
        return _correlation_id(accepted.correlation_id)

    def operations(self, vm_uuid: str, since: datetime) -> Sequence[Operation]:
        """Operations of the CVM that started at or after ``since``, newest first, at most 1,000."""
        earlier = since - timedelta(seconds=1)  # the API's filter leaves out what started at that very moment
        with phala_faults(Reason.CVM_NOT_FOUND):
            found = self._client.iter_cvm_operations(id=vm_uuid, start_time=earlier, limit=_PAGE)
            operations = [_operation(one) for one in itertools.islice(found, _OPERATIONS) if one.started_at >= since]
        return sorted(operations, key=lambda operation: operation.started_at, reverse=True)

    def running(self, vm_uuid: str) -> Running:
        """What runs, by attestation and by the CVM info.

        The attested hash counts only if it is also the sha256 of the measured app-compose document beside it.
        """
        with phala_faults(Reason.CVM_NOT_FOUND):
            info = self._client.get_cvm_info(id=vm_uuid)
        cvm = _cvm(info)
        return Running(self._attested_hash(vm_uuid), cvm.compose_hash, cvm.status)

    def webhooks(self) -> Sequence[Hook]:
        """The workspace's webhooks there."""
        with phala_faults(Reason.PHALA_UNAUTHORIZED):
            found = self._client.list_webhooks()
        return [Hook(one.id, one.url, one.enabled, frozenset(one.events)) for one in found]

    def hook_deliveries(self, hook_id: str, since: datetime) -> Sequence[HookDelivery]:
        """What was sent to a webhook at or after ``since``, by Phala Cloud's clock; of the newest 5,000 at most."""
        found: list[WebhookDelivery] = []
        for page in range(_DELIVERY_PAGES):
            with phala_faults(Reason.PHALA_UNAUTHORIZED):
                listed = self._client.list_webhook_deliveries(webhook_id=hook_id, limit=_PAGE, offset=page * _PAGE)
            found += [one for one in listed if one.created_at >= since]
            if len(listed) < _PAGE or all(one.created_at < since for one in listed):
                break
        return [_hook_delivery(one) for one in found]

    def resend(self, hook_id: str, event_id: str) -> None:
        """Have an event sent again, under a new id."""
        with phala_faults(Reason.PHALA_UNAUTHORIZED):
            self._client.resend_webhook_delivery(webhook_id=hook_id, event_id=event_id)

    def pending_updates(self, app_contract: str) -> Sequence[PendingUpdate]:
        """Updates of an app's CVMs that were prepared and not applied; none of an app that is not known there."""
        try:
            with phala_faults(Reason.CVM_NOT_FOUND):
                found = self._client.get_pending_updates(app_id=app_contract[2:].lower())
        except NotFound:
            return ()
        return [_pending_update(one.vm_uuid, one.compose_hash) for one in found.items]

    def _attested_hash(self, vm_uuid: str) -> str | None:
        try:
            with phala_faults(Reason.CVM_NOT_FOUND):
                return _attested_hash(self._client.get_cvm_attestation(id=vm_uuid))
        except (NotFound, Refused, Unauthorized):  # the CVM was just read: it keeps its attestation to itself
            return None


def _cvm(info: CvmInfo) -> Cvm:
    chain_id = info.kms_info.chain_id if info.kms_info is not None else None
    told = {value.lower().removeprefix("0x") for value in _addresses(info)} if chain_id is not None else set()
    if len(told) > 1:
        raise _nonsense("the app id and the app contract differ")
    return Cvm(
        vm_uuid=_sense("vm_uuid", lambda: str(UUID(info.vm_uuid))),
        name=one_line(info.name, 100),
        app_contract=_sense("app id", lambda: address(told.pop())) if told else None,
        chain_id=chain_id,
        device_id=_optional("device id", info.node_info.device_id if info.node_info is not None else None),
        compose_hash=_optional("compose hash", info.compose_hash),
        status=one_line(info.status, 50),
    )


def _addresses(info: CvmInfo) -> list[str]:
    contract = info.kms_info.dstack_app_address if info.kms_info is not None else None
    return [value for value in (contract, info.app_id) if value]


def _prepared(answer: PatchPrepared) -> Prepared:
    if answer.commit_token is None or not answer.commit_token.get_secret_value():
        raise _nonsense("a prepared update without its commit token")
    return Prepared(
        compose_hash=_sense("compose hash", lambda: bytes32(answer.compose_hash)),
        app_contract=_sense("app id", lambda: address(answer.app_id)),
        device_id=_sense("device id", lambda: bytes32(answer.device_id)),
        chain_id=answer.kms_info.chain_id,
        commit_token=answer.commit_token,
    )


def _operation(found: CvmOperation) -> Operation:
    try:
        status = OperationStatus(found.status)
    except ValueError:
        status = OperationStatus.IN_PROGRESS  # a status we do not know is neither success nor failure
    return Operation(
        correlation_id=found.correlation_id,
        status=status,
        started_at=found.started_at,
        compose_hash=_optional("compose hash", found.compose_hash),
        error=one_line(found.error_message) if found.error_message else None,
        is_update=any(word in kind for kind in (found.operation_type, *found.sub_operations) for word in _UPDATES),
    )


def _hook_delivery(found: WebhookDelivery) -> HookDelivery:
    return HookDelivery(
        event_id=found.event_id,
        original_id=found.original_event_id or found.event_id,
        event_type=found.event_type,
        delivered=found.delivered_at is not None or found.response_status // 100 == _SUCCESS,
        failed=found.status == "failed",
        created_at=found.created_at,
    )


def _pending_update(vm_uuid: str, compose_hash: str) -> PendingUpdate:
    return PendingUpdate(
        _sense("vm_uuid", lambda: str(UUID(vm_uuid))), _sense("compose hash", lambda: bytes32(compose_hash))
    )


def _attested_hash(attestation: CvmAttestation) -> str | None:
    tcb = attestation.tcb_info
    if tcb is None or tcb.compose_hash is None:
        return None
    return "0x" + tcb.compose_hash if tcb.compose_hash == tcb.app_compose_sha256 else None


def _correlation_id(value: str) -> str:
    if not value or len(value) > _CORRELATION_ID or not value.isprintable():
        raise _nonsense("a correlation id that is none")
    return value


def _optional(what: str, value: str | None) -> str | None:
    return _sense(what, lambda: bytes32(value)) if value else None


def _sense(what: str, read: Callable[[], T]) -> T:
    """A value out of an answer; none but the right form counts."""
    try:
        return read()
    except (ValueError, TypeError, AttributeError):
        raise _nonsense(f"a {what} of the wrong form") from None


def _nonsense(what: str) -> Nonsense:
    return Nonsense(f"Phala Cloud: {what}", reason=Reason.PHALA_UNREACHABLE)
