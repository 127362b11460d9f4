"""What endpoints ask for: the caller, and the change request in the path."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator
from starlette.requests import Request

from service.api.cursors import REQUEST_ID
from service.api.problems import NOT_FOUND, WORKSPACE_MISSING, Problem
from service.api.representation import Representer
from service.api.waiting import WaitingRoom
from service.store import workspaces
from service.store.database import Database
from service.store.tables import ChangeRequest
from service.wiring import ApiParts

# The header is checked by `ApiRoute`, before the body is read; this puts the scheme into the API's description.
_BEARER = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="API key of a workspace")


@dataclass(frozen=True, slots=True)
class Caller:
    """The workspace that speaks, and the parts of the API."""

    workspace_id: str
    parts: ApiParts
    waiting: WaitingRoom
    show: Representer

    @property
    def database(self) -> Database:
        """The database."""
        return self.parts.database


def get_caller(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]) -> Caller:
    """The caller that ``ApiRoute`` recognised.

    Raises:
        Problem: ``workspace_missing``.
    """
    parts: ApiParts = request.app.state.parts
    slug: str = request.state.workspace
    ids: dict[str, str] = request.app.state.workspace_ids
    if slug not in ids:
        ids[slug] = _id_of(parts.database, slug)
    show = Representer(slug, parts.chains, parts.database.public_url)
    return Caller(ids[slug], parts, request.app.state.waiting, show)


def _id_of(database: Database, slug: str) -> str:
    workspace_id = workspaces.id_of(database, slug)
    if workspace_id is None:
        raise Problem(WORKSPACE_MISSING, f"The workspace {slug} is not in the database: its operator creates it.")
    return workspace_id


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
RequestId = Annotated[str, AfterValidator(_possible_id), Path(description="`cr_...`")]
