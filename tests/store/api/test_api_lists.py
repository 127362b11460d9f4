"""Lists of change requests in an order, page by page."""

import itertools
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from service.api import cursors
from service.store.database import Database
from service.store.request_lists import Place, Sort
from service.store.tables import ChangeRequest
from tests.support import rows
from tests.support.routes import problem
from tests.support.served_api import Api

PATH = "/v1/change-requests"
# Two of them at one moment: then the id decides.
UPDATED = (3, 0, 2, 2, 1)


@pytest.fixture
def made(database: Database, workspaces: dict[str, str]) -> list[str]:
    """Ids in the order of creation."""
    times = [rows.NOW + timedelta(microseconds=after) for after in UPDATED]
    return [rows.change_request(database, workspaces["acme"], updated_at=time) for time in times]


def pages(api: Api, limit: int, **query: Any) -> list[str]:
    """Ids over all pages; the order is given for the first one only."""
    found: list[str] = []
    cursor: dict[str, Any] = query
    for _ in itertools.count():
        page = api.acme.get(PATH, params={"limit": limit, **cursor}).json()
        found += [one["id"] for one in page["items"]]
        cursor = {"cursor": page["next_cursor"]}
        if page["next_cursor"] is None:
            break
    return found


@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("sort", sorted(Sort))
def test_a_cursor_carries_its_order(api: Api, made: list[str], sort: Sort, limit: int):
    moments = dict(zip(made, UPDATED, strict=True))
    expected = sorted(made, key=lambda one: (moments[one], one)) if sort.by_update else list(made)
    assert pages(api, limit, sort=sort.value) == (expected[::-1] if sort.descends else expected)


def test_the_newest_come_first_if_nothing_is_said(api: Api, made: list[str]):
    assert pages(api, 2) == made[::-1]


def test_one_that_is_updated_while_somebody_reads_is_not_missed(api: Api, database: Database, made: list[str]):
    first = api.acme.get(PATH, params={"limit": 2, "sort": "updated_at"}).json()
    with database.transaction() as session:
        later = rows.NOW + timedelta(seconds=1)
        session.execute(update(ChangeRequest).where(ChangeRequest.id == made[2]).values(updated_at=later))
    rest = api.acme.get(PATH, params={"cursor": first["next_cursor"]}).json()
    assert {one["id"] for one in first["items"] + rest["items"]} == set(made)


def test_a_cursor_of_another_order_is_refused(api: Api, made: list[str]):
    cursor = api.acme.get(PATH, params={"limit": 1}).json()["next_cursor"]
    assert api.acme.get(PATH, params={"cursor": cursor, "sort": "-created_at"}).json()["items"][0]["id"] == made[-2]
    refused = problem(api.acme.get(PATH, params={"cursor": cursor, "sort": "updated_at"}), 422, "invalid_request")
    assert refused["errors"][0]["parameter"] == "cursor"


@pytest.mark.parametrize(
    "text", [f"title.0.cr_{'0' * 32}", f"-created_at.0.cr_{'0' * 31}", "-created_at.0.", f"cr_{'0' * 32}"]
)
def test_a_cursor_that_is_none_of_ours_is_refused(idle_api: Api, text: str):
    problem(idle_api.acme.get(PATH, params={"cursor": cursors.encode(text)}), 422, "invalid_request")


def test_the_longest_cursor_is_taken(idle_api: Api):
    place = Place(Sort.MOST_RECENTLY_UPDATED, f"cr_{'f' * 32}", rows.NOW.replace(year=5000))
    assert idle_api.acme.get(PATH, params={"cursor": cursors.of_requests(place)}).status_code == 200


@pytest.mark.parametrize(("digits", "status"), [(17, 200), (18, 422)])
def test_a_time_that_no_calendar_has_is_refused(idle_api: Api, digits: int, status: int):
    cursor = cursors.encode(f"updated_at.{'9' * digits}.cr_{'0' * 32}")
    assert idle_api.acme.get(PATH, params={"cursor": cursor}).status_code == status


def test_the_filters_by_cvm_take_its_name(api: Api, database: Database, workspaces: dict[str, str]):
    named = rows.change_request(database, workspaces["acme"], cvm_name="payments")
    rows.change_request(database, workspaces["acme"])
    assert pages(api, 5, cvm_id="payments") == [named]
