"""The feed of a workspace's events."""

import re
from typing import Annotated, Final

from fastapi import APIRouter, Query

from service.api import cursors
from service.api.deps import ReadDep
from service.api.description import example, failures
from service.api.problems import CURSOR_EXPIRED, INVALID_REQUEST, Problem
from service.api.route import ApiRoute
from service.api.webhook_bodies import FeedQuery
from service.api.webhook_schemas import Feed, FeedEvent
from service.store import feed
from service.store.feed import FeedFilters, Place

router = APIRouter(prefix="/v1/events", tags=["webhooks"], route_class=ApiRoute)
_PLACE: Final = re.compile(r"[0-9]{1,18}\.[0-9]{1,18}")


@router.get(
    "",
    summary="Read the events of the workspace",
    responses=example(200, "Feed", "Events, oldest first") | failures(INVALID_REQUEST, CURSOR_EXPIRED),
)
def read(query: Annotated[FeedQuery, Query()], caller: ReadDep) -> Feed:
    """Read what happened in the whole workspace, oldest first; `next_cursor` is where to read on, now or later.

    Nothing is ever added before a cursor: an event appears once every earlier transaction has ended. Acts on the
    workspace, such as `api_key.created`, are shown where `types` names them.
    """
    filters = FeedFilters(query.types.split(",") if query.types else (), query.change_request_id)
    after = _place(query.cursor)
    with caller.database.transaction() as session:
        newest = feed.newest(session, caller.workspace_id)  # before reading: nothing comes in before it any more
        found = feed.read(session, caller.workspace_id, filters, after=after, limit=query.limit + 1)
        forgotten = feed.forgotten(session, caller.workspace_id)
    if query.cursor is not None and after < forgotten:
        raise Problem(CURSOR_EXPIRED, f"{CURSOR_EXPIRED.meaning} {CURSOR_EXPIRED.remedy}")
    page = found[: query.limit]
    has_more = len(found) > len(page)
    reached = Place(page[-1].transaction_id, page[-1].position) if page else after
    if not has_more:
        reached = max(reached, newest)  # past what the filters keep out
    return Feed(
        items=[FeedEvent.of(row) for row in page],
        next_cursor=cursors.encode(f"{reached.transaction_id}.{reached.position}"),
        has_more=has_more,
    )


def _place(cursor: str | None) -> Place:
    text = cursors.decode(cursor, _PLACE)
    return Place() if text is None else Place(*map(int, text.split(".")))
