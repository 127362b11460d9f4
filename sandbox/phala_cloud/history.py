"""Operations of a CVM and revisions of an app, as pages."""

import base64
import binascii
import json
import sqlite3
from collections.abc import Collection
from datetime import datetime

from sandbox.phala_cloud import errors, shapes
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.records import Cvm, Operation, cvm_by_id, operation_from, workspace_by_id
from sandbox.phala_cloud.settings import iso
from sandbox.phala_cloud.world import World


def operations_page(
    world: World,
    cvm: Cvm,
    *,
    limit: int,
    cursor: str | None,
    start_time: datetime | None,
    end_time: datetime | None,
    operation_types: Collection[str],
) -> Json:
    """Newest first; the cursor names the last operation of the page before.

    Raises:
        ApiError: 400 for a cursor that is none of ours.
    """
    found = [
        operation
        for operation in map(
            operation_from,
            world.database.all(
                "SELECT * FROM operations WHERE cvm_id = ? ORDER BY started_at DESC, id DESC",
                cvm.id,
            ),
        )
        if (start_time is None or operation.started_at > start_time.timestamp())
        and (end_time is None or operation.started_at < end_time.timestamp())
        and (not operation_types or operation.operation_type in operation_types)
    ]
    rest = found if cursor is None else _after(found, _cursor_id(cursor))
    page = rest[:limit]
    more = len(rest) > limit
    return {
        "items": [_operation(world, operation) for operation in page],
        "total": len(found),
        "next_cursor": base64.urlsafe_b64encode(f"op:{page[-1].id}".encode()).decode() if more else None,
    }


def revisions_page(world: World, cvms: Collection[Cvm], page: int, page_size: int) -> Json:
    """Revisions of an app's CVMs, newest first."""
    ids = {cvm.id for cvm in cvms}
    rows = [row for row in world.database.all("SELECT * FROM revisions ORDER BY id DESC") if row["cvm_id"] in ids]
    first = (page - 1) * page_size
    return {
        "revisions": [_revision(world, row) for row in rows[first : first + page_size]],
        "total": len(rows),
        "page": page,
        "page_size": page_size,
        "total_pages": -(-len(rows) // page_size),
    }


def revision_detail(world: World, cvms: Collection[Cvm], revision_id: str, *, raw: bool) -> Json:
    """One revision with its compose file, as an object or as text.

    Raises:
        ApiError: 404.
    """
    row = world.database.one("SELECT * FROM revisions WHERE hashed_id = ?", revision_id)
    if row is None or row["cvm_id"] not in {cvm.id for cvm in cvms}:
        raise errors.plain(404, "Revision not found")
    return _revision(world, row) | {
        "compose_file": row["compose"] if raw else json.loads(row["compose"]),
        "encrypted_env": row["encrypted_env"],
        "user_config": row["user_config"],
    }


def _after(operations: list[Operation], last_id: int) -> list[Operation]:
    position = next((index for index, item in enumerate(operations) if item.id == last_id), None)
    if position is None:
        raise errors.bad_request("The cursor is not valid", "cursor")
    return operations[position + 1 :]


def _cursor_id(cursor: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(cursor.encode()).decode().removeprefix("op:"))
    except (ValueError, binascii.Error) as error:
        raise errors.bad_request("The cursor is not valid", "cursor") from error


def _operation(world: World, operation: Operation) -> Json:
    workspace = workspace_by_id(world.database, operation.triggered_by)
    ended = operation.completed_at
    return {
        "correlation_id": operation.correlation_id,
        "operation_type": operation.operation_type,
        "target_state": operation.target_state,
        "status": operation.status,
        "triggered_by": operation.triggered_by,
        "triggered_by_username": workspace.username,
        "triggered_by_email": None,
        "started_at": iso(operation.started_at),
        "completed_at": None if ended is None else iso(ended),
        "duration_ms": None if ended is None else int((ended - operation.started_at) * 1000),
        "error_message": operation.error_message,
        "compose_hash": operation.compose_hash,
        "instance_name": operation.instance_name,
        "sub_operations": ["shutdown", "update", "boot"],
        "events": json.loads(operation.events),
    }


def _revision(world: World, row: sqlite3.Row) -> Json:
    cvm = cvm_by_id(world.database, row["cvm_id"])
    workspace = workspace_by_id(world.database, cvm.workspace_id)
    return {
        "revision_id": row["hashed_id"],
        "app_id": cvm.app_id,
        "vm_uuid": cvm.vm_uuid,
        "compose_hash": row["compose_hash"],
        "created_at": iso(row["created_at"]),
        "trace_id": row["trace_id"],
        "operation_type": row["operation_type"],
        "triggered_by": shapes.user_ref(workspace),
        "cvm": {"object_type": "cvm", "vm_uuid": cvm.vm_uuid, "name": cvm.name, "app_id": cvm.app_id},
        "workspace": shapes.workspace_ref(workspace),
    }
