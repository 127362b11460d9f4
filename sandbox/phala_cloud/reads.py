"""The read endpoints of a CVM."""

import json
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from sandbox.phala_cloud import allowance, attestation, errors, history, os_images, shapes
from sandbox.phala_cloud.deps import Caller, CvmDep, StreamsDep, WorldDep
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.records import kms_by_id, running_operation
from sandbox.phala_cloud.settings import iso

router = APIRouter(prefix="/cvms/{cvm_id}")

ApiVersion = Annotated[str | None, Header(alias="X-Phala-Version")]


@router.get("")
def get_cvm(world: WorldDep, cvm: CvmDep, version: ApiVersion = None) -> Json:
    """CVM details in the shape of the API version asked for."""
    return shapes.for_version(world, cvm, version)


@router.get("/state", response_model=None)
def get_state(
    world: WorldDep,
    streams: StreamsDep,
    caller: Caller,
    cvm: CvmDep,
    *,
    target: str | None = None,
    interval: Annotated[int, Query(ge=5, le=30)] = 5,
    timeout: Annotated[int, Query(ge=10, le=600)] = 300,
) -> Json | Response:
    """The state now; with `target` a stream of it until it is the target."""
    if target is None:
        return shapes.cvm_state(world, cvm)
    text = streams.open(world, caller, cvm, target, (interval, timeout))
    return StreamingResponse(text, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


@router.get("/docker-compose.yml")
def get_docker_compose(cvm: CvmDep) -> Response:
    """The Docker Compose file."""
    return PlainTextResponse(cvm.document["docker_compose_file"], media_type="text/yaml")


@router.get("/pre-launch-script")
def get_pre_launch_script(cvm: CvmDep) -> Response:
    """The pre-launch script."""
    return PlainTextResponse(cvm.document["pre_launch_script"])


@router.get("/user_config")
def get_user_config(cvm: CvmDep) -> Json:
    """Host name, SSH keys and gateway domain out of the user configuration."""
    try:
        config = json.loads(cvm.user_config or "{}")
    except ValueError as error:
        raise errors.plain(502, "Invalid user_config JSON") from error
    if not isinstance(config, dict):
        raise errors.plain(502, "Invalid user_config JSON")
    return {
        "hostname": config.get("hostname", cvm.name),
        "ssh_authorized_keys": config.get("ssh_authorized_keys", []),
        "default_gateway_domain": config.get("default_gateway_domain"),
    }


@router.get("/attestation")
def get_attestation(world: WorldDep, cvm: CvmDep) -> Json:
    """What the running instance proves about itself."""
    return attestation.attestation(cvm, kms_by_id(world.database, cvm.kms_id))


@router.get("/available-os-images")
def get_available_os_images(cvm: CvmDep) -> list[Json]:
    """The images this CVM can change to."""
    return os_images.available(cvm.image)


@router.get("/operations")
def get_operations(
    world: WorldDep,
    cvm: CvmDep,
    *,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    start_time: datetime | None = None,
    end_time: datetime | None = None,
    operation_types: Annotated[list[str] | None, Query()] = None,
) -> Json:
    """Operations, newest first."""
    return history.operations_page(
        world,
        cvm,
        limit=limit,
        cursor=cursor,
        start_time=start_time,
        end_time=end_time,
        operation_types=operation_types or [],
    )


@router.get("/operation-status")
def get_operation_status(world: WorldDep, cvm: CvmDep) -> Json:
    """The operation in progress, or idle. Phala documents the endpoint but not its answer."""
    operation = running_operation(world.database, cvm.id)
    if operation is None:
        return {"status": "idle"}
    return {
        "status": operation.status,
        "operation_type": operation.operation_type,
        "correlation_id": operation.correlation_id,
        "started_at": iso(operation.started_at),
    }


class IsAllowedRequest(BaseModel):
    """Body of a CVM's is-allowed; everything defaults to the CVM's own."""

    compose_hash: str | None = None
    node_id: int | None = None
    device_id: str | None = None


@router.post("/is-allowed")
def is_allowed(world: WorldDep, cvm: CvmDep, body: IsAllowedRequest | None = None) -> Json:
    """What the contract says about a hash and a device for this CVM."""
    given = body or IsAllowedRequest()
    return allowance.cvm_is_allowed(world, cvm, given.compose_hash, given.device_id)
