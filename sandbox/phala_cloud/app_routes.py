"""Endpoints of an app: its CVMs, revisions, allowances and pending updates."""

import json
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from sandbox.phala_cloud import allowance, errors, history, identifiers, prepare, shapes
from sandbox.phala_cloud.deps import AppCvms, Caller, WorldDep
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.reads import ApiVersion
from sandbox.phala_cloud.records import Cvm, Prepare, cvm_from
from sandbox.phala_cloud.settings import iso
from sandbox.phala_cloud.world import World

router = APIRouter(prefix="/apps/{app_id}")
list_router = APIRouter()


@list_router.get("/apps")
def list_apps(
    world: WorldDep,
    caller: Caller,
    page: Annotated[int, Query(ge=1)] = 1,
    page_size: Annotated[int, Query(ge=1, le=100)] = 50,
) -> Json:
    """The workspace's apps in pages, each with its CVMs."""
    by_app: dict[str, list[Cvm]] = {}
    for row in world.database.all("SELECT * FROM cvms WHERE workspace_id = ? ORDER BY id", caller.id):
        by_app.setdefault(row["app_id"], []).append(cvm_from(row))
    apps = list(by_app.values())
    first = (page - 1) * page_size
    return {
        "dstack_apps": [_app(world, cvms) for cvms in apps[first : first + page_size]],
        "page": page,
        "page_size": page_size,
        "total": len(apps),
        "total_pages": -(-len(apps) // page_size),
    }


@router.get("")
def get_app(world: WorldDep, cvms: AppCvms) -> Json:
    """One app with its CVMs."""
    return _app(world, cvms)


@router.get("/cvms")
def get_app_cvms(world: WorldDep, cvms: AppCvms, version: ApiVersion = None) -> list[Json]:
    """The app's CVMs."""
    return [shapes.for_version(world, cvm, version) for cvm in cvms]


@router.get("/revisions")
def get_revisions(
    world: WorldDep,
    cvms: AppCvms,
    page: Annotated[int, Query(ge=1)] = 1,
    page_size: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> Json:
    """What was deployed, newest first."""
    return history.revisions_page(world, cvms, page, page_size)


@router.get("/revisions/{revision_id}")
def get_revision(world: WorldDep, cvms: AppCvms, revision_id: str, *, raw_compose_file: bool = False) -> Json:
    """One revision with its compose file."""
    return history.revision_detail(world, cvms, revision_id, raw=raw_compose_file)


@router.get("/device-allowlist")
def get_device_allowlist(world: WorldDep, cvms: AppCvms) -> Json:
    """The app's devices and what the contract says about them."""
    return allowance.device_allowlist(world, cvms)


@router.get("/kms-info")
def get_kms_info(world: WorldDep, cvms: AppCvms) -> Json:
    """The app's KMS and the owner of its contract."""
    return allowance.app_kms_info(world, cvms[0])


class AppIsAllowedRequest(BaseModel):
    """Body of an app's is-allowed."""

    compose_hash: str
    node_id: int | None = None
    device_id: str | None = None
    chain_id: int | None = None


@router.post("/is-allowed")
def is_allowed(world: WorldDep, cvms: AppCvms, body: AppIsAllowedRequest) -> Json:
    """What the contract says about a hash and a device."""
    return allowance.app_is_allowed(world, cvms[0], body.compose_hash, body.device_id)


@router.post("/cvms/is-allowed")
def cvms_are_allowed(world: WorldDep, cvms: AppCvms) -> Json:
    """What the contract says about every CVM of the app."""
    return allowance.app_cvms_are_allowed(world, cvms)


@router.get("/pending-updates")
def get_pending_updates(world: WorldDep, cvms: AppCvms) -> Json:
    """Prepared updates that have not been applied; no tokens."""
    items = []
    for cvm in cvms:
        for pending in _pending(world, cvm).values():
            on_chain = (
                allowance.is_on_chain(world, cvm)
                and prepare.read_allowance(world, cvm, pending.compose_hash).compose_hash_allowed
            )
            items.append(
                {
                    "vm_uuid": cvm.vm_uuid,
                    "compose_hash": pending.compose_hash,
                    "on_chain": on_chain,
                    "instance_name": cvm.name,
                },
            )
    return {"items": items}


@router.get("/pending-updates/{vm_uuid}/{compose_hash}/preview")
def preview_pending_update(
    world: WorldDep,
    caller: Caller,
    cvms: AppCvms,
    vm_uuid: str,
    compose_hash: str,
) -> Json:
    """Current and pending texts of one update."""
    cvm = identifiers.find_cvm(world.database, vm_uuid, caller)
    pending = _pending(world, cvm).get(compose_hash.lower().removeprefix("0x"))
    if pending is None or cvm not in cvms:
        raise errors.plain(404, "Pending update not found")
    document = json.loads(pending.compose)
    return {
        "current_docker_compose": cvm.document["docker_compose_file"],
        "pending_docker_compose": document["docker_compose_file"],
        "current_pre_launch_script": cvm.document["pre_launch_script"],
        "pending_pre_launch_script": document["pre_launch_script"],
    }


def _pending(world: World, cvm: Cvm) -> dict[str, Prepare]:
    rows = world.database.all(
        "SELECT * FROM prepares WHERE cvm_id = ? AND spent_at IS NULL AND superseded_at IS NULL"
        " AND expires_at > ? AND compose_hash != ? ORDER BY id",
        cvm.id,
        world.clock.now(),
        cvm.compose_hash,
    )
    return {row["compose_hash"]: Prepare(**dict(row)) for row in rows}


def _app(world: World, cvms: list[Cvm]) -> Json:
    infos = [shapes.cvm_info(world, cvm, detail=False) for cvm in cvms]
    return {
        "id": f"prj_{cvms[0].app_id[:8]}",
        "name": cvms[0].name,
        "app_id": cvms[0].app_id,
        "created_at": iso(cvms[0].created_at),
        "kms_type": infos[0]["kms_type"],
        "current_cvm": infos[0],
        "cvms": infos,
        "cvm_count": len(infos),
    }
