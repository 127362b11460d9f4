"""The feed of a workspace's events."""

import re
from typing import Annotated, Final

from fastapi import APIRouter, Query

from service.api import cursors
from service.api.deps import ReadDep
from service.api.description import example, failures
from service.api.problems import INVALID_REQUEST
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
    responses=example(200, "Feed", "Events, oldest first") | failures(INVALID_REQUEST),
)
def read(query: Annotated[FeedQuery, Query()], caller: ReadDep) -> Feed:
    """Read what happened in the whole workspace, oldest first; `next_cursor` is where to read on, now or later.

    Nothing is ever added before a cursor: an event appears once every earlier transaction has ended. Acts on the
    workspace, such as `api_key.created`, are shown where `types` names them.
    """
    filters = FeedFilters(query.types.split(",") if query.types else (), query.change_request_id)
    after = _place(query.cursor)
    with caller.database.transaction() as session:
        found = feed.read(session, caller.workspace_id, filters, after=after, limit=query.limit + 1)
    page = found[: query.limit]
    reached = Place(page[-1].transaction_id, page[-1].position) if page else after
    return Feed(
        items=[FeedEvent.of(row) for row in page],
        next_cursor=cursors.encode(f"{reached.transaction_id}.{reached.position}"),
        has_more=len(found) > len(page),
    )


def _place(cursor: str | None) -> Place:
    text = cursors.decode(cursor, _PLACE)
    return Place() if text is None else Place(*map(int, text.split(".")))
