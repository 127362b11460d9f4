"""Routes that change what becomes of a change request."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Body
from starlette.responses import Response

from service.api import refreshing, retrying
from service.api.bodies import REFRESH_EXAMPLES, RETRY_EXAMPLES, RefreshBody, RetryBody
from service.api.deps import RequestId, SubmitDep, known
from service.api.description import example, failures
from service.api.policy import permit, permit_cancel
from service.api.problems import (
    ALREADY_ENDED,
    BODY_TOO_LARGE,
    CHAIN_NOT_CONFIGURED,
    COMMIT_STARTED,
    CVM_BUSY,
    INVALID_REQUEST,
    MALFORMED_JSON,
    NOT_FOUND,
    NOT_PERMITTED,
    NOTHING_PREPARED,
    NOTHING_TO_RETRY,
    PREPARE_NEEDED,
    PREPARED_DIFFERS,
    TOKEN_ALREADY_SUBMITTED,
    UNSUPPORTED_MEDIA_TYPE,
    WORKSPACE_BLOCKED,
    Problem,
)
from service.api.route import ApiRoute
from service.api.routers.change_requests import shown_now
from service.api.schemas import ChangeRequestOut
from service.domain.workspaces import PolicyAct
from service.store import requests, wishes
from service.store.wishes import AlreadyEnded, CommitStarted

router = APIRouter(prefix="/v1/change-requests", tags=["change requests"], route_class=ApiRoute)

_BODY_PROBLEMS = (MALFORMED_JSON, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST)


@contextmanager
def _in_time() -> Iterator[None]:
    """Turn the store's "too late" into problems."""
    try:
        yield
    except CommitStarted:
        raise Problem(COMMIT_STARTED, COMMIT_STARTED.meaning) from None
    except AlreadyEnded:
        raise Problem(ALREADY_ENDED, f"{ALREADY_ENDED.meaning} {ALREADY_ENDED.remedy}") from None


@router.post(
    "/{request_id}/cancel",
    status_code=202,
    summary="Cancel a change request",
    responses=example(202, "ChangeRequest", "The wish is stored")
    | failures(NOT_PERMITTED, NOT_FOUND, COMMIT_STARTED, ALREADY_ENDED),
)
def cancel(request_id: RequestId, caller: SubmitDep) -> ChangeRequestOut:
    """Ask to cancel. The state turns `cancelled` soon after; to ask twice changes nothing."""
    with caller.database.transaction() as session:
        row = known(requests.get(session, caller.workspace_id, request_id))
    permit_cancel(caller, row)
    now = caller.parts.clock.now()
    with _in_time():
        known(wishes.wish_cancel(caller.database, caller.workspace_id, request_id, now, caller.actor))
    return shown_now(caller, request_id)


@router.post(
    "/{request_id}/release",
    status_code=202,
    summary="Release the commit of a change request",
    responses=example(202, "ChangeRequest", "It is released")
    | failures(WORKSPACE_BLOCKED, NOT_FOUND, COMMIT_STARTED, ALREADY_ENDED),
)
def release(request_id: RequestId, caller: SubmitDep) -> ChangeRequestOut:
    """Let the commit follow that the policy `hold`, or a failure in the same rollout, holds; also beforehand.

    It does not end a freeze, and does not pass over `not_before`. To release twice changes nothing. Which keys may do
    it is `policy.release` of the workspace: those of scope `manage` and larger unless it says otherwise.
    """
    permit(caller, PolicyAct.RELEASE)
    now = caller.parts.clock.now()
    with _in_time():
        known(wishes.release(caller.database, caller.workspace_id, request_id, now, caller.actor))
    return shown_now(caller, request_id)


@router.post(
    "/{request_id}/retry",
    status_code=202,
    summary="Try a change request again",
    responses=example(202, "ChangeRequest", "A new change request is stored", headers=["Location"])
    | failures(
        *_BODY_PROBLEMS,
        NOT_PERMITTED,
        WORKSPACE_BLOCKED,
        NOT_FOUND,
        NOTHING_TO_RETRY,
        PREPARE_NEEDED,
        CVM_BUSY,
        COMMIT_STARTED,
    ),
)
def retry(
    request_id: RequestId,
    caller: SubmitDep,
    response: Response,
    body: Annotated[RetryBody | None, Body(openapi_examples=RETRY_EXAMPLES)] = None,
) -> ChangeRequestOut:
    """Submit the patch of one that ended without being completed once more, as a change request of its own.

    `retry_of` links it. A compose hash that was approved already needs no new signatures.
    """
    permit(caller, PolicyAct.SUBMIT)
    with caller.database.transaction() as session:
        ended = known(requests.get(session, caller.workspace_id, request_id))
    row = retrying.retry(ended, body or RetryBody(), caller)
    response.headers["Location"] = caller.show.url(row.id)
    return caller.show.change_request(row, None)


@router.post(
    "/{request_id}/refresh",
    status_code=202,
    summary="Ask for a fresh commit token, or hand one in",
    responses=example(202, "ChangeRequest", "The wish is stored, or the token taken")
    | failures(
        *_BODY_PROBLEMS,
        WORKSPACE_BLOCKED,
        NOT_FOUND,
        PREPARED_DIFFERS,
        NOTHING_PREPARED,
        TOKEN_ALREADY_SUBMITTED,
        COMMIT_STARTED,
        ALREADY_ENDED,
        CHAIN_NOT_CONFIGURED,
    ),
)
def refresh(
    request_id: RequestId,
    caller: SubmitDep,
    body: Annotated[RefreshBody | None, Body(openapi_examples=REFRESH_EXAMPLES)] = None,
) -> ChangeRequestOut:
    """Renew the commit token of an update: without a body the service prepares its patch again.

    The approval stands: the compose hash must be the same.
    """
    permit(caller, PolicyAct.SUBMIT)
    shown = shown_now(caller, request_id)
    prepared = body.prepared if body else None
    refreshing.refresh(caller.parts, caller.workspace_id, shown.id, prepared, caller.actor)
    return shown_now(caller, request_id)
