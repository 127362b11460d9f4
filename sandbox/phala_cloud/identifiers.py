"""Which CVM or app a path segment means: every form of identifier that Phala's clients send."""

import re

from sandbox.phala_cloud import errors
from sandbox.phala_cloud.database import Database
from sandbox.phala_cloud.records import Cvm, Workspace, cvm_from

_APP_ID = re.compile(r"(?:app_|0x|app_0x)?([0-9a-f]{40})", re.IGNORECASE)
_INSTANCE_ID = re.compile(r"instance_([0-9a-f]{40})", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE)

_BY_UUID = "SELECT * FROM cvms WHERE replace(vm_uuid, '-', '') = ?"
_BY_APP = "SELECT * FROM cvms WHERE app_id = ?"
_BY_INSTANCE = "SELECT * FROM cvms WHERE instance_id = ?"
_BY_HASHED_ID = "SELECT * FROM cvms WHERE hashed_id = ?"
_BY_NUMBER = "SELECT * FROM cvms WHERE id = ?"
_BY_NAME = "SELECT * FROM cvms WHERE name = ?"


def find_cvm(database: Database, identifier: str, workspace: Workspace | None) -> Cvm:
    """The CVM meant; only those of `workspace` are visible, all if it is None.

    Raises:
        ApiError: 404 ERR-03-001; 400 ERR-03-010 (app id of several CVMs) or ERR-03-002 (duplicated name).
    """
    sql, value, ambiguity = _lookup(identifier)
    found = [cvm_from(row) for row in database.all(sql, value)]
    visible = [cvm for cvm in found if workspace is None or cvm.workspace_id == workspace.id]
    if not visible:
        raise errors.cvm_not_found(identifier)
    if len(visible) > 1:
        raise errors.structured(
            400,
            ambiguity,
            "The identifier matches several CVMs",
            details=[
                {"field": "cvm_id", "value": cvm.vm_uuid, "message": f"{cvm.name} is one of them"} for cvm in visible
            ],
            suggestions=["Use the CVM's UUID"],
        )
    return visible[0]


def find_app(database: Database, identifier: str, workspace: Workspace) -> list[Cvm]:
    """The CVMs of an app, oldest first.

    Raises:
        ApiError: 404 if the workspace has none.
    """
    match = _APP_ID.fullmatch(identifier)
    rows = database.all(f"{_BY_APP} ORDER BY id", match[1].lower()) if match else []
    cvms = [cvm for cvm in map(cvm_from, rows) if cvm.workspace_id == workspace.id]
    if not cvms:
        raise errors.app_not_found(identifier)
    return cvms


def _lookup(identifier: str) -> tuple[str, str | int, str]:
    if match := _APP_ID.fullmatch(identifier):
        return _BY_APP, match[1].lower(), "ERR-03-010"
    if match := _INSTANCE_ID.fullmatch(identifier):
        return _BY_INSTANCE, match[1].lower(), "ERR-03-010"
    if _UUID.fullmatch(identifier):
        return _BY_UUID, identifier.replace("-", "").lower(), "ERR-03-010"
    if identifier.startswith("cvm_"):
        return _BY_HASHED_ID, identifier, "ERR-03-010"
    if identifier.isascii() and identifier.isdigit():
        return _BY_NUMBER, int(identifier), "ERR-03-010"
    return _BY_NAME, identifier, "ERR-03-002"
