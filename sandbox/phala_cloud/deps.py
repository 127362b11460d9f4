"""What endpoints ask for: the world, the caller's workspace, and the CVM or app in the path."""

from typing import Annotated

from fastapi import Depends, Header, Request

from sandbox.phala_cloud import errors, identifiers
from sandbox.phala_cloud.faults import FaultStore
from sandbox.phala_cloud.records import Cvm, Workspace, workspace_by_api_key
from sandbox.phala_cloud.streams import Streams
from sandbox.phala_cloud.world import World


def get_world(request: Request) -> World:
    """The world this application was made with."""
    world: World = request.app.state.world
    return world


WorldDep = Annotated[World, Depends(get_world)]


def get_caller(
    world: WorldDep,
    x_api_key: Annotated[str | None, Header()] = None,
    authorization: Annotated[str | None, Header()] = None,
) -> Workspace:
    """The workspace of the API key, from `X-API-Key` or `Authorization: Bearer`."""
    scheme, _, bearer = (authorization or "").partition(" ")
    key = x_api_key or (bearer if scheme.lower() == "bearer" else "")
    if not key:
        raise errors.plain(401, "Not authenticated")
    workspace = workspace_by_api_key(world.database, key)
    if workspace is None:
        raise errors.plain(401, "Invalid API key")
    return workspace


Caller = Annotated[Workspace, Depends(get_caller)]


def get_cvm(world: WorldDep, caller: Caller, cvm_id: str) -> Cvm:
    """The CVM of the path segment `cvm_id`, if the caller may see it."""
    return identifiers.find_cvm(world.database, cvm_id, caller)


CvmDep = Annotated[Cvm, Depends(get_cvm)]


def get_app_cvms(world: WorldDep, caller: Caller, app_id: str) -> list[Cvm]:
    """The caller's CVMs of the app in the path segment `app_id`."""
    return identifiers.find_app(world.database, app_id, caller)


AppCvms = Annotated[list[Cvm], Depends(get_app_cvms)]


def get_base_url(request: Request) -> str:
    """Where this sandbox is reached, without a trailing slash."""
    return str(request.base_url).rstrip("/")


BaseUrl = Annotated[str, Depends(get_base_url)]


def get_streams(request: Request) -> Streams:
    """The open event streams."""
    streams: Streams = request.app.state.streams
    return streams


StreamsDep = Annotated[Streams, Depends(get_streams)]


def get_faults(request: Request) -> FaultStore:
    """The misbehaviour still to come."""
    faults: FaultStore = request.app.state.faults
    return faults


FaultsDep = Annotated[FaultStore, Depends(get_faults)]
