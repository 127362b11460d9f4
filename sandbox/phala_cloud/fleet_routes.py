"""Endpoints over all CVMs of a workspace: lists, batch status, and backfilling of instance ids."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from sandbox.phala_cloud import identifiers, shapes
from sandbox.phala_cloud.deps import Caller, CvmDep, WorldDep
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.records import Cvm, Workspace, cvm_from
from sandbox.phala_cloud.world import World

router = APIRouter()
cvm_router = APIRouter(prefix="/cvms/{cvm_id}")

_COUNTERS = {
    "updated": "updated",
    "unchanged": "unchanged",
    "skipped": "skipped",
    "conflict": "conflicts",
    "error": "errors",
}


@router.get("/cvms/paginated")
def list_cvms(
    world: WorldDep,
    caller: Caller,
    page: Annotated[int, Query(ge=1)] = 1,
    page_size: Annotated[int, Query(ge=1, le=100)] = 30,
) -> Json:
    """The workspace's CVMs in pages."""
    cvms = _cvms(world, caller)
    first = (page - 1) * page_size
    return {
        "items": [shapes.cvm_info(world, cvm, detail=False) for cvm in cvms[first : first + page_size]],
        "total": len(cvms),
        "page": page,
        "page_size": page_size,
        "pages": -(-len(cvms) // page_size),
    }


class StatusBatch(BaseModel):
    """Body of status/batch."""

    model_config = ConfigDict(extra="forbid")

    vm_uuids: list[str]


@router.post("/status/batch")
def status_batch(world: WorldDep, caller: Caller, body: StatusBatch) -> Json:
    """Status by UUID as asked for; unknown and hidden ones are left out."""
    cvms = {cvm.vm_uuid.replace("-", ""): cvm for cvm in _cvms(world, caller)}
    asked = {vm_uuid: vm_uuid.replace("-", "").lower() for vm_uuid in body.vm_uuids}
    return {vm_uuid: shapes.cvm_status(world, cvms[bare]) for vm_uuid, bare in asked.items() if bare in cvms}


class RefreshOptions(BaseModel):
    """Body of PATCH instance-id."""

    model_config = ConfigDict(extra="forbid")

    overwrite: bool = False
    dry_run: bool = False


class BatchRefreshOptions(RefreshOptions):
    """Body of PATCH instance-ids; unknown members are refused."""

    cvm_ids: list[str] | None = None
    running_only: bool = True
    missing_only: bool = True
    limit: int = Field(default=100, ge=1, le=500)


@cvm_router.patch("/instance-id")
def refresh_instance_id(world: WorldDep, cvm: CvmDep, body: RefreshOptions | None = None) -> Json:
    """Record the instance id the node knows; it mints none."""
    return _refresh(world, cvm, body or RefreshOptions())


@router.patch("/cvms/instance-ids")
def refresh_instance_ids(
    world: WorldDep,
    caller: Caller,
    body: BatchRefreshOptions | None = None,
) -> Json:
    """The same for many CVMs."""
    options = body or BatchRefreshOptions()
    if options.cvm_ids is None:
        chosen = _cvms(world, caller)
    else:
        chosen = [identifiers.find_cvm(world.database, identifier, caller) for identifier in options.cvm_ids]
    matching = [
        cvm
        for cvm in chosen
        if not (options.running_only and cvm.status != "running")
        and not (options.missing_only and cvm.instance_id is not None)
    ]
    items = [_refresh(world, cvm, options) for cvm in matching[: options.limit]]
    counts = dict.fromkeys(_COUNTERS.values(), 0)
    for item in items:
        counts[_COUNTERS[item["status"]]] += 1
    return {"total": len(matching), "scanned": len(items), **counts, "items": items}


def _refresh(world: World, cvm: Cvm, options: RefreshOptions) -> Json:
    running = cvm.running_compose is not None
    differs = cvm.instance_id != cvm.node_instance_id
    reason = None
    if not running:
        status, reason = "skipped", "CVM is not running"
    elif not differs:
        status = "unchanged"
    elif cvm.instance_id is not None and not options.overwrite:
        status, reason = "conflict", "instance_id differs, overwrite not requested"
    else:
        status = "updated"
        if not options.dry_run:
            world.database.update("cvms", cvm.id, instance_id=cvm.node_instance_id)
    return {
        "cvm_id": cvm.id,
        "identifier": cvm.vm_uuid,
        "status": status,
        "old_instance_id": cvm.instance_id,
        "new_instance_id": cvm.node_instance_id if running else None,
        "source": "teepod_info" if running else "none",
        "verified_with_gateway": False,
        "reason": reason,
    }


def _cvms(world: World, workspace: Workspace) -> list[Cvm]:
    rows = world.database.all("SELECT * FROM cvms WHERE workspace_id = ? ORDER BY id", workspace.id)
    return [cvm_from(row) for row in rows]
