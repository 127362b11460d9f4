"""The public API, v1 and v2."""

from typing import TYPE_CHECKING, Annotated, Any

from eth_utils.address import is_checksum_address
from fastapi import APIRouter, Depends, Request, Response

from sandbox.safe_service import about, confirmations, creation, delegates, listing, proposals, representation
from sandbox.safe_service.errors import ApiError, server_error_page
from sandbox.safe_service.forms import parse_json
from sandbox.safe_service.representation import ApiVersion
from sandbox.safe_service.service import Service

if TYPE_CHECKING:
    from sandbox.safe_service.indexer import Indexer

router = APIRouter(prefix="/api")


def current_service(request: Request) -> Service:
    """The service, brought up to the chain."""
    indexer: Indexer = request.app.state.indexer
    indexer.catch_up()
    service: Service = request.app.state.service
    return service


async def raw_body(request: Request) -> bytes:
    """The body; Starlette hands it out asynchronously only."""
    return await request.body()


def json_body(request: Request, raw: Annotated[bytes, Depends(raw_body)]) -> object:
    """The parsed body."""
    return parse_json(request.headers.get("content-type", ""), raw)


def json_object(body: Annotated[object, Depends(json_body)]) -> dict[str, Any]:
    """The parsed body, which must be an object."""
    if not isinstance(body, dict):
        message = f"Invalid data. Expected a dictionary, but got {type(body).__name__}."
        raise ApiError(400, {"nonFieldErrors": [message]})
    return body


def checksummed(address: str) -> str:
    """An address of the path."""
    if not is_checksum_address(address):
        message = "Checksum address validation failed"
        raise ApiError(422, {"code": 1, "message": message, "arguments": [address]})
    return address


ServiceDep = Annotated[Service, Depends(current_service)]
Body = Annotated[dict[str, Any], Depends(json_object)]
AnyBody = Annotated[object, Depends(json_body)]
Address = Annotated[str, Depends(checksummed)]


def _url(request: Request) -> str:
    return str(request.url.replace(query=""))


@router.get("/v1/about/")
def get_about(request: Request, service: ServiceDep) -> dict[str, Any]:
    """Version and settings."""
    return about.about(service, request.headers["host"])


@router.get("/v1/about/singletons/")
def get_singletons(service: ServiceDep) -> list[dict[str, Any]]:
    """The Safe singletons indexed."""
    return about.singletons(service)


@router.get("/v1/about/indexing/")
def get_indexing(service: ServiceDep) -> dict[str, Any]:
    """How far the indexing is."""
    return about.indexing(service)


@router.get("/v1/safes/{address}/")
def get_safe(address: Address, service: ServiceDep) -> dict[str, object]:
    """A Safe as it is on chain now, once it is indexed."""
    if service.database.one("SELECT 1 FROM safes WHERE address = ?", [address]) is None:
        raise ApiError(404)
    return service.chain.info(address)


@router.get("/v1/safes/{address}/creation/")
def get_creation(address: Address, service: ServiceDep) -> dict[str, Any]:
    """The transaction that created a Safe."""
    return creation.creation(service, address)


@router.get("/v1/owners/{address}/safes/")
def get_owner_safes(address: Address, service: ServiceDep) -> dict[str, list[str]]:
    """The indexed Safes an address owns."""
    rows = service.database.all(
        "SELECT address FROM safes WHERE EXISTS (SELECT 1 FROM json_each(owners) WHERE value = ?)"
        " ORDER BY block_number, rowid",
        [address],
    )
    return {"safes": [row["address"] for row in rows]}


@router.get("/{version}/safes/{address}/multisig-transactions/")
def list_transactions(version: ApiVersion, address: Address, request: Request, service: ServiceDep) -> dict[str, Any]:
    """A Safe's multisig transactions."""
    return listing.transactions(service.database, address, request.query_params, _url(request), version)


@router.post("/{version}/safes/{address}/multisig-transactions/")
def post_proposal(version: ApiVersion, address: Address, body: AnyBody, service: ServiceDep) -> Response:  # noqa: ARG001 - both versions behave alike
    """Propose a Safe transaction."""
    if not isinstance(body, dict):
        return server_error_page()  # as the real service does
    proposals.propose(service, address, body)
    return Response(status_code=201)


@router.get("/v2/safes/{address}/all-transactions/")
def list_all(address: Address, request: Request, service: ServiceDep) -> dict[str, Any]:
    """Executed multisig transactions."""
    return listing.executed(service.database, address, request.query_params, _url(request))


@router.get("/{version}/multisig-transactions/{safe_tx_hash}/")
def get_transaction(version: ApiVersion, safe_tx_hash: str, service: ServiceDep) -> dict[str, Any]:
    """One multisig transaction."""
    sql = "SELECT * FROM transactions WHERE safe_tx_hash = ?"
    row = service.database.one(sql, [safe_tx_hash])
    if row is None:
        raise ApiError(404, {"detail": "No MultisigTransaction matches the given query."})
    return representation.transaction(service.database, row, version)


@router.delete("/v2/multisig-transactions/{safe_tx_hash}/")
def delete_transaction(safe_tx_hash: str, body: Body, service: ServiceDep) -> Response:
    """Delete a proposal."""
    proposals.delete(service, safe_tx_hash, body)
    return Response(status_code=204)


@router.get("/v1/multisig-transactions/{safe_tx_hash}/confirmations/")
def list_confirmations(safe_tx_hash: str, request: Request, service: ServiceDep) -> dict[str, Any]:
    """The confirmations of a multisig transaction."""
    found = representation.confirmation_list(service.database, safe_tx_hash)
    return listing.paged(found, request.query_params, _url(request))


@router.post("/v1/multisig-transactions/{safe_tx_hash}/confirmations/", status_code=201)
def post_confirmation(safe_tx_hash: str, body: Body, service: ServiceDep) -> dict[str, Any]:
    """Confirm a multisig transaction."""
    confirmations.confirm(service, safe_tx_hash, body)
    return {"signature": body["signature"]}


@router.get("/{version}/delegates/")
def list_delegates(version: ApiVersion, request: Request, service: ServiceDep) -> dict[str, Any]:  # noqa: ARG001 - both versions behave alike
    """Delegates by filter."""
    return listing.paged(delegates.listed(service, request.query_params), request.query_params, _url(request))


@router.post("/v2/delegates/", status_code=201)
def post_delegate(body: Body, service: ServiceDep) -> dict[str, Any]:
    """Add a delegate."""
    return delegates.add(service, body)


@router.delete("/v2/delegates/{address}/")
def delete_delegate(address: Address, body: Body, service: ServiceDep) -> Response:
    """Remove a delegate."""
    delegates.remove(service, address, body)
    return Response(status_code=204)
