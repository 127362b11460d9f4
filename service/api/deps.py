"""What endpoints ask for: the caller, and the change request in the path."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Path, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator
from starlette.requests import Request

from service.api.cursors import REQUEST_ID
from service.api.problems import NOT_FOUND, Problem
from service.api.representation import Representer
from service.api.waiting import WaitingRoom
from service.domain.actors import Actor, ActorKind, request_origin
from service.domain.api_keys import Scope
from service.store.api_keys import Holder
from service.store.database import Database
from service.store.idempotency import Attempt
from service.store.tables import ChangeRequest
from service.wiring import ApiParts

# The header is checked by `ApiRoute`, before the body is read; this puts the scheme into the API's description.
_BEARER = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="API key of a workspace")


@dataclass(frozen=True, slots=True)
class Caller:
    """The workspace that speaks, and the parts of the API.

    Attributes:
        holder: the key it speaks by.
        origin: where the request came from, see ``Actor``.
        attempt: the idempotent request this is, if it has an ``Idempotency-Key``.
    """

    holder: Holder
    parts: ApiParts
    waiting: WaitingRoom
    show: Representer
    request_id: str
    origin: Mapping[str, str]
    attempt: Attempt | None = None

    @property
    def workspace_id(self) -> str:
        """The workspace that speaks."""
        return self.holder.workspace_id

    @property
    def actor(self) -> Actor:
        """The caller as the audit log names it."""
        return Actor(ActorKind.API_KEY, self.holder.key_id, self.holder.name, origin=self.origin)

    @property
    def database(self) -> Database:
        """The database."""
        return self.parts.database

    def within(self, database: Database) -> "Caller":
        """The same caller, whose work is part of a transaction under way."""
        return replace(self, parts=replace(self.parts, database=database))


async def get_caller(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]) -> Caller:
    """The caller that ``ApiRoute`` let in."""
    parts: ApiParts = request.app.state.parts
    holder: Holder = request.state.holder
    show = Representer(holder.workspace, parts.chains, parts.database.public_url)
    waiting = request.app.state.waiting
    origin = origin_of(request)
    return Caller(holder, parts, waiting, show, request.state.request_id, origin, request.state.attempt)


def origin_of(request: Request) -> Mapping[str, str]:
    """Where a request came from, as the server saw it."""
    ip = None if request.client is None else request.client.host
    return request_origin(ip, request.headers.get("user-agent"), request.state.request_id)


@dataclass(frozen=True, slots=True)
class Needs:
    """The caller, for a route that needs a key of a scope. ``ApiRoute`` reads it and refuses others."""

    scope: Scope

    async def __call__(self, caller: Annotated[Caller, Depends(get_caller)]) -> Caller:
        """The caller, who is let in already."""
        return caller


def known(row: ChangeRequest | None) -> ChangeRequest:
    """A row that was found in the caller's workspace.

    Raises:
        Problem: ``not_found``; the same for what never was and for what belongs to another workspace.
    """
    if row is None:
        raise Problem(NOT_FOUND, "There is no such change request in the workspace of this API key.")
    return row


def _possible_id(request_id: str) -> str:
    if not REQUEST_ID.fullmatch(request_id):
        known(None)
    return request_id


CallerDep = Annotated[Caller, Depends(get_caller)]
"""A caller without a word about scopes: ``ApiRoute`` lets in the largest scope only, and a test refuses the route."""
ReadDep = Annotated[Caller, Depends(Needs(Scope.READ))]
SubmitDep = Annotated[Caller, Depends(Needs(Scope.SUBMIT))]
ManageDep = Annotated[Caller, Depends(Needs(Scope.MANAGE))]
RequestId = Annotated[str, AfterValidator(_possible_id), Path(description="`cr_...`")]
