"""Routes of change requests."""

from typing import Annotated

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from service.api import cursors, refreshing, representation, submissions
from service.api.bodies import REFRESH_EXAMPLES, SUBMIT_EXAMPLES, RefreshBody, SubmitBody
from service.api.deps import Caller, ReadDep, RequestId, SubmitDep, known
from service.api.description import example, failures
from service.api.fields import Bytes32, CvmId
from service.api.problems import (
    ALREADY_ENDED,
    BODY_TOO_LARGE,
    CHAIN_NOT_CONFIGURED,
    COMMIT_STARTED,
    INVALID_REQUEST,
    MALFORMED_JSON,
    NOT_FOUND,
    NOT_PERMITTED,
    NOTHING_PREPARED,
    PREPARED_DIFFERS,
    TOKEN_ALREADY_SUBMITTED,
    TOO_MANY_WAITING,
    UNSUPPORTED_MEDIA_TYPE,
    Problem,
)
from service.api.route import ApiRoute
from service.api.schemas import ChangeRequestList, ChangeRequestOut, EventList
from service.domain.states import TERMINAL, State
from service.store import requests
from service.store.requests import AlreadyEnded, CommitStarted, Filters

router = APIRouter(prefix="/v1/change-requests", tags=["change requests"], route_class=ApiRoute)


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ReadQuery(_Query):
    """How to read one change request."""

    wait: Annotated[
        float,
        Field(
            ge=0,
            le=60,
            allow_inf_nan=False,
            description="Answer when the state changes, after at most so many seconds",
        ),
    ] = 0
    state: Annotated[
        State | None,
        Field(description="With `wait`: the state you know. Answers at once if it is another one already"),
    ] = None


class ListQuery(_Query):
    """Which change requests to list."""

    state: State | None = None
    cvm_id: Annotated[CvmId | None, Field(description="As submitted, or the vm uuid")] = None
    compose_hash: Annotated[Bytes32 | None, Field(description="32 bytes hex, with or without 0x")] = None
    live: Annotated[bool | None, Field(description="Only those that have not ended, or only those that have")] = None
    cursor: Annotated[str | None, Field(max_length=100, description="`next_cursor` of the page before")] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class EventsQuery(_Query):
    """Which events to list."""

    after: Annotated[int, Field(ge=0, le=2**63 - 1, description="Only events with a higher `seq`")] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


@router.post(
    "",
    status_code=202,
    summary="Submit a change request",
    responses=example(202, "ChangeRequest", "Stored", headers=["Location"])
    | failures(
        MALFORMED_JSON,
        NOT_PERMITTED,
        TOKEN_ALREADY_SUBMITTED,
        BODY_TOO_LARGE,
        UNSUPPORTED_MEDIA_TYPE,
        INVALID_REQUEST,
        CHAIN_NOT_CONFIGURED,
    ),
)
def submit(
    body: Annotated[SubmitBody, Body(openapi_examples=SUBMIT_EXAMPLES)], caller: SubmitDep, response: Response
) -> ChangeRequestOut:
    """Store a change of one CVM. It is prepared, proposed to the Safe's owners, and committed once they approved."""
    asked = submissions.submission(body, caller.workspace_id, caller.parts.chains)
    row = submissions.store(caller.parts, asked, caller.actor)
    response.headers["Location"] = caller.show.url(row.id)
    return caller.show.change_request(row, None)


@router.get(
    "",
    summary="List change requests",
    responses=example(200, "ChangeRequests", "One page, newest first") | failures(INVALID_REQUEST),
)
def listing(query: Annotated[ListQuery, Query()], caller: ReadDep) -> ChangeRequestList:
    """List the workspace's change requests, newest first."""
    filters = Filters(query.state, query.cvm_id, query.compose_hash, query.live)
    before = cursors.decode(query.cursor)
    with caller.database.transaction() as session:
        rows = requests.listing(session, caller.workspace_id, filters, before=before, limit=query.limit + 1)
        page = rows[: query.limit]
        approvals = requests.approvals_of(session, page)
    return ChangeRequestList(
        items=[caller.show.change_request(row, approvals.get(row.id)) for row in page],
        next_cursor=cursors.encode(page[-1].id) if len(rows) > len(page) else None,
    )


def _read(caller: Caller, request_id: str) -> ChangeRequestOut:
    with caller.database.transaction() as session:
        row = known(requests.get(session, caller.workspace_id, request_id))
        approvals = requests.approvals_of(session, [row])
    return caller.show.change_request(row, approvals.get(row.id))


@router.get(
    "/{request_id}",
    summary="Read a change request",
    responses=example(200, "ChangeRequest", "The change request")
    | failures(NOT_FOUND, INVALID_REQUEST, TOO_MANY_WAITING),
)
def read(request_id: RequestId, query: Annotated[ReadQuery, Query()], caller: ReadDep) -> ChangeRequestOut:
    """Read a change request now, or with `wait` as soon as its state changes.

    Give the `state` you know as well, so that no change between two reads is missed.
    """
    shown = _read(caller, request_id)
    if query.wait == 0 or shown.state in TERMINAL or shown.state is not (query.state or shown.state):
        return shown
    caller.waiting.wait(request_id, from_state=shown.state.value, seconds=query.wait)
    return _read(caller, request_id)


@router.get(
    "/{request_id}/events",
    summary="List the events of a change request",
    responses=example(200, "Events", "Events in order") | failures(NOT_FOUND, INVALID_REQUEST),
)
def events(request_id: RequestId, query: Annotated[EventsQuery, Query()], caller: ReadDep) -> EventList:
    """List what happened, in order: the timeline, and the same data that webhooks carry."""
    with caller.database.transaction() as session:
        row = known(requests.get(session, caller.workspace_id, request_id))
        found = requests.events_of(session, row, after=query.after, limit=query.limit)
    return EventList(
        items=[representation.event(event) for event in found], last_seq=found[-1].seq if found else query.after
    )


@router.post(
    "/{request_id}/cancel",
    status_code=202,
    summary="Cancel a change request",
    responses=example(202, "ChangeRequest", "The wish is stored") | failures(NOT_FOUND, COMMIT_STARTED, ALREADY_ENDED),
)
def cancel(request_id: RequestId, caller: SubmitDep) -> ChangeRequestOut:
    """Ask to cancel. The state turns `cancelled` soon after; to ask twice changes nothing."""
    shown = _read(caller, request_id)
    try:
        requests.wish_cancel(caller.database, caller.workspace_id, shown.id, caller.parts.clock.now(), caller.actor)
    except CommitStarted:
        raise Problem(COMMIT_STARTED, COMMIT_STARTED.meaning) from None
    except AlreadyEnded:
        raise Problem(ALREADY_ENDED, f"{ALREADY_ENDED.meaning} {ALREADY_ENDED.remedy}") from None
    return _read(caller, request_id)


@router.post(
    "/{request_id}/refresh",
    status_code=202,
    summary="Ask for a fresh commit token, or hand one in",
    responses=example(202, "ChangeRequest", "The wish is stored, or the token taken")
    | failures(
        MALFORMED_JSON,
        NOT_FOUND,
        PREPARED_DIFFERS,
        NOTHING_PREPARED,
        TOKEN_ALREADY_SUBMITTED,
        COMMIT_STARTED,
        ALREADY_ENDED,
        BODY_TOO_LARGE,
        UNSUPPORTED_MEDIA_TYPE,
        INVALID_REQUEST,
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
    shown = _read(caller, request_id)
    prepared = body.prepared if body else None
    refreshing.refresh(caller.parts, caller.workspace_id, shown.id, prepared, caller.actor)
    return _read(caller, request_id)
