"""After an update is accepted the CVM goes down, the KMS is asked, and the CVM boots or does not."""

import json
import secrets
import sqlite3
from typing import Any

from sandbox.phala_cloud import compose, errors, webhooks
from sandbox.phala_cloud.chain import ChainUnavailableError
from sandbox.phala_cloud.compose import Update
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.records import (
    Cvm,
    Operation,
    cvm_by_id,
    kms_by_id,
    operation_from,
    running_operation,
    workspace_by_id,
)
from sandbox.phala_cloud.settings import iso
from sandbox.phala_cloud.world import World

MISHAPS = ("operation_failure", "boot_failure", "other_compose")
"""What can be told to go wrong with a CVM's next operation: it fails before the CVM goes down; the CVM does
not boot; the CVM boots with another compose than the one approved."""

_NOTHING_DUE = 60.0
_RETRY_KMS_SECONDS = 0.5


def start(
    world: World,
    cvm: Cvm,
    operation_type: str,
    update: Update | None = None,
    *,
    hold_seconds: float | None = None,
) -> str:
    """Begin an operation inside the caller's transaction and answer its correlation id.

    Args:
        world: the sandbox.
        cvm: the CVM it happens to.
        operation_type: such as `compose_update`.
        update: what to boot with; None keeps what is configured.
        hold_seconds: the operation only keeps the CVM busy this long and changes nothing.

    Raises:
        ApiError: 409 while another operation runs.
    """
    now = world.clock.now()
    mishap = None if hold_seconds is not None else _take_mishap(world, cvm)
    delay = world.settings.get().accept_seconds if hold_seconds is None else hold_seconds
    correlation_id = f"corr_{secrets.token_hex(13)}"
    planned = Update(cvm.compose) if update is None else update
    try:
        world.database.insert(
            "operations",
            cvm_id=cvm.id,
            correlation_id=correlation_id,
            operation_type=operation_type,
            status="in_progress",
            phase="accepted" if hold_seconds is None else "holding",
            target_state="running",
            compose=planned.text,
            compose_hash=planned.compose_hash,
            members=json.dumps(planned.members),
            mishap=None if mishap is None else mishap["kind"],
            mishap_detail=None if mishap is None else mishap["detail"],
            started_at=now,
            due_at=now + delay,
            triggered_by=cvm.workspace_id,
            instance_name=cvm.name,
            events=json.dumps([_event(operation_type, "start", now, cvm.status)]),
        )
    except sqlite3.IntegrityError as error:
        raise errors.busy() from error
    return correlation_id


def ensure_idle(world: World, cvm: Cvm) -> None:
    """Refuse while another operation runs.

    Raises:
        ApiError: 409.
    """
    if running_operation(world.database, cvm.id) is not None:
        raise errors.busy()


def end_hold(world: World, cvm: Cvm) -> None:
    """End the operation that only keeps the CVM busy, if one does."""
    with world.database.transaction():
        operation = running_operation(world.database, cvm.id)
        if operation is not None and operation.phase == "holding":
            _finish(world, operation, world.clock.now(), cvm.status, error=None)


def advance(world: World) -> float:
    """Move on every operation that is due; answers the seconds until the next one is."""
    while True:
        now = world.clock.now()
        row = world.database.one(
            "SELECT * FROM operations WHERE status = 'in_progress' ORDER BY due_at, id",
        )
        if row is None:
            return _NOTHING_DUE
        operation = operation_from(row)
        due_at = operation.due_at or 0.0
        if due_at > now:
            return due_at - now
        _step(world, operation, due_at)


def _step(world: World, operation: Operation, due_at: float) -> None:
    cvm = cvm_by_id(world.database, operation.cvm_id)
    if operation.phase == "holding":
        with world.database.transaction():
            _finish(world, operation, due_at, cvm.status, error=None)
    elif operation.mishap == "operation_failure":
        with world.database.transaction():
            _finish(world, operation, due_at, cvm.status, error=operation.mishap_detail)
            _tell(world, cvm, cvm.status, operation.mishap_detail)
        world.ring()
    elif operation.phase == "accepted":
        _go_down(world, operation, cvm, due_at)
    else:
        _boot(world, operation, cvm, due_at)


def _go_down(world: World, operation: Operation, cvm: Cvm, at: float) -> None:
    """The node has the new configuration; the old instance is gone."""
    events = [*json.loads(operation.events), _event(operation.operation_type, "shutdown", at, "restarting")]
    with world.database.transaction():
        world.database.update(
            "operations",
            operation.id,
            phase="restarting",
            due_at=at + world.settings.get().restart_seconds,
            events=json.dumps(events),
        )
        world.database.update(
            "cvms",
            cvm.id,
            **json.loads(operation.members),
            status="restarting",
            compose=operation.compose,
            compose_hash=operation.compose_hash,
            running_compose=None,
            running_since=None,
            exited_at=at,
            boot_progress="booting",
            boot_error=None,
            updated_at=at,
        )


def _boot(world: World, operation: Operation, cvm: Cvm, at: float) -> None:
    """The KMS hands out keys only for a hash and a device that the contract allows."""
    try:
        refusal = _refusal(world, operation, cvm)
    except ChainUnavailableError:
        world.database.update("operations", operation.id, due_at=world.clock.now() + _RETRY_KMS_SECONDS)
        return
    text = _altered(cvm) if operation.mishap == "other_compose" else cvm.compose
    status = "running" if refusal is None else "error"
    with world.database.transaction():
        world.database.update(
            "cvms",
            cvm.id,
            status=status,
            running_compose=text if refusal is None else None,
            running_since=at if refusal is None else None,
            boot_progress="done" if refusal is None else "failed",
            boot_error=refusal,
            updated_at=at,
        )
        if refusal is None:
            add_revision(world, cvm, operation.operation_type, operation.correlation_id, at)
        _finish(world, operation, at, status, error=refusal)
        world.record(
            "boot",
            cvm.vm_uuid,
            correlation_id=operation.correlation_id,
            booted=refusal is None,
            compose_hash=compose.hash_of(text),
            error=refusal,
        )
        _tell(world, cvm, status, refusal)
    world.ring()


def _refusal(world: World, operation: Operation, cvm: Cvm) -> str | None:
    if operation.mishap == "boot_failure":
        return operation.mishap_detail
    if operation.mishap == "other_compose" or kms_by_id(world.database, cvm.kms_id).chain_id is None:
        return None
    allowance = world.chain.allowance(cvm.app_address, cvm.compose_hash, cvm.device_id, lagging=False)
    if not allowance.compose_hash_allowed:
        return "Boot denied by KMS: Compose hash not allowed"
    if not allowance.device_id_allowed:
        return "Boot denied by KMS: Device not allowed"
    return None


def add_revision(world: World, cvm: Cvm, operation_type: str, trace_id: str | None, at: float) -> None:
    """Remember what the CVM was deployed with."""
    world.database.insert(
        "revisions",
        hashed_id=f"rev_{secrets.token_hex(6)}",
        cvm_id=cvm.id,
        compose=cvm.compose,
        compose_hash=cvm.compose_hash,
        encrypted_env=cvm.encrypted_env,
        user_config=cvm.user_config,
        operation_type="deploy" if operation_type == "create" else "update",
        trace_id=trace_id,
        created_at=at,
    )


def _finish(world: World, operation: Operation, at: float, state: str, *, error: str | None) -> None:
    row = world.database.one("SELECT events FROM operations WHERE id = ?", operation.id)
    events: list[Any] = json.loads(row["events"]) if row else []
    outcome = "complete" if error is None else "failed"
    world.database.update(
        "operations",
        operation.id,
        status="completed" if error is None else "failed",
        phase="done",
        due_at=None,
        completed_at=at,
        error_message=error,
        events=json.dumps([*events, _event(operation.operation_type, outcome, at, state)]),
    )


def _tell(world: World, cvm: Cvm, status: str, error: str | None) -> None:
    data: Json = {"cvm_id": cvm.vm_uuid, "cvm_name": cvm.name, "app_id": cvm.app_address, "status": status}
    if error is not None:
        data["error"] = error
    webhooks.emit(world, workspace_by_id(world.database, cvm.workspace_id), "cvm.updated", data)


def _event(operation_type: str, step: str, at: float, state: str) -> Json:
    return {"event_type": f"instance.{operation_type}.{step}", "timestamp": iso(at), "state": state}


def _altered(cvm: Cvm) -> str:
    document = cvm.document
    document["allowed_envs"] = [*document.get("allowed_envs", []), "NOT_APPROVED"]
    return compose.canonical(document)


def _take_mishap(world: World, cvm: Cvm) -> sqlite3.Row | None:
    row = world.database.one("SELECT * FROM mishaps WHERE cvm_id = ? ORDER BY id", cvm.id)
    if row is not None:
        world.database.run("DELETE FROM mishaps WHERE id = ?", row["id"])
    return row
