"""Routes of change requests."""

from typing import Annotated

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from service.api import cursors, representation, submissions
from service.api.bodies import SUBMIT_EXAMPLES, SubmitBody
from service.api.cursors import REQUEST_ID
from service.api.deps import Caller, ReadDep, RequestId, SubmitDep, known
from service.api.description import example, failures
from service.api.fields import Bytes32, CvmId
from service.api.policy import permit
from service.api.problems import (
    BODY_TOO_LARGE,
    CHAIN_NOT_CONFIGURED,
    COMMIT_STARTED,
    CVM_BUSY,
    INVALID_REQUEST,
    MALFORMED_JSON,
    NOT_FOUND,
    NOT_PERMITTED,
    TOKEN_ALREADY_SUBMITTED,
    TOO_MANY_WAITING,
    UNSUPPORTED_MEDIA_TYPE,
    WORKSPACE_BLOCKED,
)
from service.api.route import ApiRoute
from service.api.schemas import ChangeRequestList, ChangeRequestOut, EventList
from service.domain.states import TERMINAL, State
from service.domain.workspaces import PolicyAct
from service.store import request_lists, requests
from service.store.request_lists import Filters, Place, Sort

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
    cvm_id: Annotated[CvmId | None, Field(description="As submitted, or its vm uuid or name")] = None
    compose_hash: Annotated[Bytes32 | None, Field(description="32 bytes hex, with or without 0x")] = None
    live: Annotated[bool | None, Field(description="Only those that have not ended, or only those that have")] = None
    retry_of: Annotated[
        str | None, Field(pattern=f"^{REQUEST_ID.pattern}$", description="Only those that try this one again")
    ] = None
    sort: Annotated[
        Sort | None, Field(description="Order; a minus puts the newest first, as `-created_at` does if left out")
    ] = None
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
        WORKSPACE_BLOCKED,
        TOKEN_ALREADY_SUBMITTED,
        CVM_BUSY,
        COMMIT_STARTED,
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
    permit(caller, PolicyAct.SUBMIT)
    row = submissions.store(submissions.submission(body, caller), caller)
    response.headers["Location"] = caller.show.url(row.id)
    return caller.show.change_request(row, None)


@router.get(
    "",
    summary="List change requests",
    responses=example(200, "ChangeRequests", "One page") | failures(INVALID_REQUEST),
)
def listing(query: Annotated[ListQuery, Query()], caller: ReadDep) -> ChangeRequestList:
    """List the workspace's change requests, newest first unless `sort` says otherwise."""
    filters = Filters(query.state, query.cvm_id, query.compose_hash, query.live, query.retry_of)
    after = cursors.request_place(query.cursor, query.sort)
    sort = after.sort if after is not None else query.sort or Sort.NEWEST
    with caller.database.transaction() as session:
        rows = request_lists.listing(
            session, caller.workspace_id, filters, sort=sort, after=after, limit=query.limit + 1
        )
        page = rows[: query.limit]
        approvals = requests.approvals_of(session, page)
    more = len(rows) > len(page)
    return ChangeRequestList(
        items=[caller.show.change_request(row, approvals.get(row.id)) for row in page],
        next_cursor=cursors.of_requests(Place.behind(page[-1], sort)) if more else None,
    )


def shown_now(caller: Caller, request_id: str) -> ChangeRequestOut:
    """A change request as it is now.

    Raises:
        Problem: ``not_found``.
    """
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
    shown = shown_now(caller, request_id)
    if query.wait == 0 or shown.state in TERMINAL or shown.state is not (query.state or shown.state):
        return shown
    caller.waiting.wait(request_id, from_state=shown.state.value, seconds=query.wait)
    return shown_now(caller, request_id)


@router.get(
    "/{request_id}/events",
    summary="List the events of a change request",
    responses=example(200, "Events", "Events in order") | failures(NOT_FOUND, INVALID_REQUEST),
)
def events(request_id: RequestId, query: Annotated[EventsQuery, Query()], caller: ReadDep) -> EventList:
    """List what happened, in order: the timeline, and the same data that webhooks carry."""
    with caller.database.transaction() as session:
        row = known(requests.get(session, caller.workspace_id, request_id))
        found = request_lists.events_of(session, row, after=query.after, limit=query.limit)
    return EventList(
        items=[representation.event(event) for event in found],
        last_seq=found[-1].seq if found else query.after,
        deleted_at=row.events_deleted_at,
    )
