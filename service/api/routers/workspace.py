"""Routes of the caller's own workspace. It is known by the key: no route names another."""

from typing import Annotated, Final

from fastapi import APIRouter, Body

from service.api import contracts, workspace_examples, workspace_schemas
from service.api.contracts import ContractId
from service.api.deps import AdminDep, Caller, ManageDep, ReadDep
from service.api.description import example, failures
from service.api.problems import (
    BODY_TOO_LARGE,
    CHAIN_NOT_CONFIGURED,
    INVALID_REQUEST,
    MALFORMED_JSON,
    NOT_FOUND,
    TOO_MANY_REGISTERED,
    UNSUPPORTED_MEDIA_TYPE,
    Problem,
)
from service.api.route import ApiRoute
from service.api.workspace_bodies import ContractBody, WorkspaceChange
from service.api.workspace_schemas import ContractList, ContractOut, WorkspaceOut
from service.store import registered, standing, workspace_settings
from service.store.registered import Contract, TooManyRegistered
from service.store.tables import ExternalApp, RegisteredSafe, Workspace

_OF_BODY: Final = (MALFORMED_JSON, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST)
_REGISTERING: Final = failures(*_OF_BODY, CHAIN_NOT_CONFIGURED, TOO_MANY_REGISTERED)

router = APIRouter(prefix="/v1/workspace", tags=["workspace"], route_class=ApiRoute)

SafeBody = Annotated[ContractBody, Body(openapi_examples=workspace_examples.REGISTER_SAFE)]
AppBody = Annotated[ContractBody, Body(openapi_examples=workspace_examples.REGISTER_APP)]


def _show(caller: Caller) -> WorkspaceOut:
    with caller.database.transaction() as session:
        row = session.get_one(Workspace, caller.workspace_id)
        return workspace_schemas.workspace(row, standing.hindrances(session, row), caller.database.public_url)


@router.get("", summary="Read the workspace", responses=example(200, "Workspace", "The workspace of the API key"))
def read(caller: ReadDep) -> WorkspaceOut:
    """Read what the workspace is set to, which secrets are set and since when, and what blocks it, if anything."""
    return _show(caller)


@router.patch(
    "",
    summary="Change the workspace",
    responses=example(200, "Workspace", "The workspace as it is now") | failures(*_OF_BODY),
)
def change(
    body: Annotated[WorkspaceChange, Body(openapi_examples=workspace_examples.CHANGE)], caller: AdminDep
) -> WorkspaceOut:
    """Change what is told, and leave the rest. Requests that wait for another Phala API key go on at once."""
    workspace_settings.change(caller.database, caller.workspace_id, body.changes(), caller.actor)
    return _show(caller)


@router.post(
    "/recheck",
    status_code=202,
    summary="Look again at what blocks the workspace",
    responses=example(202, "Workspace", "Requests that wait for a repair are looked at again now"),
)
def recheck(caller: ManageDep) -> WorkspaceOut:
    """Have requests looked at again at once that wait for a Phala API key, a Safe or a delegate."""
    standing.recheck(caller.database, caller.workspace_id, caller.actor)
    return _show(caller)


@router.get("/safes", summary="List registered Safes", responses=example(200, "Safes", "By chain and address"))
def safes(caller: ReadDep) -> ContractList:
    """List the Safes that may own the workspace's apps."""
    return _listed(caller, RegisteredSafe)


@router.post(
    "/safes", status_code=201, summary="Register a Safe", responses=example(201, "Safe", "Registered") | _REGISTERING
)
def add_safe(body: SafeBody, caller: AdminDep) -> ContractOut:
    """Register a Safe whose apps may be changed. To register it twice changes nothing."""
    return _added(caller, RegisteredSafe, body)


@router.delete(
    "/safes/{contract}",
    summary="Forget a Safe",
    responses=example(200, "Safe", "The Safe as it was") | failures(NOT_FOUND),
)
def remove_safe(contract: ContractId, caller: AdminDep) -> ContractOut:
    """Forget a Safe: nothing more is proposed to it. What was proposed already goes on."""
    return _removed(caller, RegisteredSafe, contract)


@router.get(
    "/external-apps",
    summary="List external apps",
    responses=example(200, "ExternalApps", "By chain and address"),
)
def external_apps(caller: ReadDep) -> ContractList:
    """List the app contracts whose approval is given outside of a Safe of this workspace."""
    return _listed(caller, ExternalApp)


@router.post(
    "/external-apps",
    status_code=201,
    summary="Declare an app's approval as external",
    responses=example(201, "ExternalApp", "Declared") | _REGISTERING,
)
def add_external_app(body: AppBody, caller: AdminDep) -> ContractOut:
    """Declare that an app's approval is given elsewhere: nothing is proposed, requests wait until it is on chain."""
    return _added(caller, ExternalApp, body)


@router.delete(
    "/external-apps/{contract}",
    summary="Take the declaration back",
    responses=example(200, "ExternalApp", "The app as it was declared") | failures(NOT_FOUND),
)
def remove_external_app(contract: ContractId, caller: AdminDep) -> ContractOut:
    """Take it back that an app's approval is external. What waits for it goes on waiting."""
    return _removed(caller, ExternalApp, contract)


def _listed(caller: Caller, kind: type[Contract]) -> ContractList:
    with caller.database.transaction() as session:
        rows = registered.listing(session, caller.workspace_id, kind)
    return ContractList(items=[workspace_schemas.contract(row, caller.parts.chains) for row in rows])


def _added(caller: Caller, kind: type[Contract], body: ContractBody) -> ContractOut:
    chain_id, address = contracts.told(body, caller.parts.chains)
    try:
        row = registered.add(caller.database, caller.workspace_id, kind, chain_id, address, caller.actor)
    except TooManyRegistered:
        raise Problem(TOO_MANY_REGISTERED, f"{TOO_MANY_REGISTERED.meaning} {TOO_MANY_REGISTERED.remedy}") from None
    return workspace_schemas.contract(row, caller.parts.chains)


def _removed(caller: Caller, kind: type[Contract], contract: str) -> ContractOut:
    chain_id, address = contracts.named(contract, caller.parts.chains)
    row = registered.remove(caller.database, caller.workspace_id, kind, chain_id, address, caller.actor)
    if row is None:
        raise contracts.unregistered()
    return workspace_schemas.contract(row, caller.parts.chains)
