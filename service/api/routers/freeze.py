"""Routes of the switch that holds all commits of the workspace."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict, Field

from service.api.deps import ManageDep, ReadDep
from service.api.description import example, failures
from service.api.fields import Lines
from service.api.problems import BODY_TOO_LARGE, INVALID_REQUEST, MALFORMED_JSON, UNSUPPORTED_MEDIA_TYPE
from service.api.route import ApiRoute
from service.api.schemas import CommitFreeze
from service.domain.gates import Freeze
from service.store import freezes

router = APIRouter(prefix="/v1/workspace/freeze", tags=["workspace"], route_class=ApiRoute)

_EXAMPLES: Final[dict[str, Any]] = {
    "incident": {"summary": "During an incident", "value": {"reason": "Incident 4711: nothing restarts until it ends"}},
    "holidays": {"summary": "Over the holidays", "value": {"reason": "Nobody is at work before January 7th"}},
}


class FreezeBody(BaseModel):
    """Why all commits are held."""

    model_config = ConfigDict(extra="forbid", strict=True, title="FreezeCommits")

    reason: Annotated[Lines, Field(description="For people; shown by every change request that it holds")]


def _show(freeze: Freeze | None) -> CommitFreeze:
    if freeze is None:
        return CommitFreeze(frozen=False, frozen_at=None, frozen_by=None, reason=None)
    return CommitFreeze(frozen=True, frozen_at=freeze.at, frozen_by=freeze.by, reason=freeze.reason)


@router.get("", summary="Read the freeze", responses=example(200, "CommitFreeze", "Whether commits are held"))
def read(caller: ReadDep) -> CommitFreeze:
    """Read whether all commits of the workspace are held."""
    return _show(freezes.current(caller.database, caller.workspace_id))


@router.post(
    "",
    summary="Freeze commits",
    responses=example(200, "CommitFreeze", "Commits are held")
    | failures(MALFORMED_JSON, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST),
)
def freeze(body: Annotated[FreezeBody, Body(openapi_examples=_EXAMPLES)], caller: ManageDep) -> CommitFreeze:
    """Hold every commit of the workspace that has not been sent yet. Preparing and approving go on."""
    now = caller.parts.clock.now()
    return _show(freezes.freeze(caller.database, caller.workspace_id, body.reason, now, caller.actor))


@router.delete("", summary="End the freeze", responses=example(200, "CommitFreeze", "Commits go on"))
def unfreeze(caller: ManageDep) -> CommitFreeze:
    """Let commits go on. To end a freeze twice changes nothing."""
    freezes.unfreeze(caller.database, caller.workspace_id, caller.actor)
    return _show(None)
