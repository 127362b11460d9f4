"""The feed over REST."""

from typing import Any

import pytest

from service.domain.outcomes import Notice, Wait
from service.domain.reasons import Reason
from service.domain.states import State
from service.store import transitions
from service.store.database import Database
from service.store.tables import ChangeRequest
from tests.support import rows
from tests.support.served_api import Api

PATH = "/v1/events"


def tell(database: Database, workspace_id: str, *names: Notice) -> str:
    request_id = rows.change_request(database, workspace_id)
    lease = rows.lease(database, ChangeRequest, request_id)
    notices = tuple((name, {}) for name in names)
    transitions.apply(database, lease, State.RECEIVED, Wait(0, Reason.PHALA_BUSY, notices=notices), rows.NOW)
    return request_id


def test_a_reader_goes_on_from_cursor_to_cursor(api: Api, database: Database, workspaces: dict[str, str]):
    first = tell(database, workspaces["acme"], *[Notice.ALERT] * 3)
    tell(database, workspaces["other"], Notice.ALERT)
    page = api.acme.get(PATH, params={"limit": 2}).json()
    assert [(one["change_request_id"], one["seq"]) for one in page["items"]] == [(first, 1), (first, 2)]
    assert page["has_more"]
    page = api.acme.get(PATH, params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert ([one["seq"] for one in page["items"]], page["has_more"]) == ([3], False)
    end = api.acme.get(PATH, params={"cursor": page["next_cursor"]}).json()
    assert (end["items"], end["next_cursor"]) == ([], page["next_cursor"])
    second = tell(database, workspaces["acme"], Notice.REORGED)
    (new,) = api.acme.get(PATH, params={"cursor": end["next_cursor"]}).json()["items"]
    assert (new["change_request_id"], new["type"], new["state"]) == (second, "change_request.reorged", "received")
    assert new["data"]["id"] == second


def test_an_empty_feed_has_a_cursor_too(api: Api, database: Database, workspaces: dict[str, str]):
    empty = api.acme.get(PATH).json()
    assert (empty["items"], empty["has_more"]) == ([], False)
    tell(database, workspaces["acme"], Notice.ALERT)
    assert len(api.acme.get(PATH, params={"cursor": empty["next_cursor"]}).json()["items"]) == 1


def test_it_is_filtered(api: Api, database: Database, workspaces: dict[str, str]):
    first = tell(database, workspaces["acme"], Notice.ALERT, Notice.REORGED)
    tell(database, workspaces["acme"], Notice.ALERT)

    def count(**query: str) -> int:
        return len(api.acme.get(PATH, params=query).json()["items"])

    assert count(types="change_request.reorged,webhook_endpoint.*") == 1
    assert count(types="change_request.*") == 3
    assert count(change_request_id=first) == 2


def test_events_of_endpoints_are_in_it(api: Api):
    endpoint = api.acme.post("/v1/webhook-endpoints", json={"url": "https://hooks.example.com/s3cret"}).json()
    api.acme.post(f"/v1/webhook-endpoints/{endpoint['id']}/test")
    (event,) = api.acme.get(PATH).json()["items"]
    assert (event["type"], event["change_request_id"], event["state"]) == ("webhook_endpoint.test", None, None)
    assert event["data"]["webhook_endpoint"]["host"] == "hooks.example.com"
    assert "s3cret" not in str(event)


def test_acts_on_the_workspace_are_shown_where_they_are_asked_for(api: Api):
    endpoint = api.acme.post("/v1/webhook-endpoints", json={"url": "https://hooks.example.com/s3cret"}).json()
    api.acme.delete(f"/v1/webhook-endpoints/{endpoint['id']}")
    assert api.acme.get(PATH).json()["items"] == []
    created, deleted = api.acme.get(PATH, params={"types": "webhook_endpoint.*"}).json()["items"]
    assert [created["type"], deleted["type"]] == ["webhook_endpoint.created", "webhook_endpoint.deleted"]
    assert deleted["previous_hash"] == created["hash"]
    assert deleted["seq"] == created["seq"] + 1
    assert created["actor"]["kind"] == "api_key"
    assert created["data"]["webhook_endpoint"]["id"] == endpoint["id"]
    (made,) = api.acme.get(PATH, params={"types": "workspace.created"}).json()["items"]
    assert made["actor"] == rows.ACTOR.as_json()


@pytest.mark.parametrize(
    "query",
    [
        {"cursor": "x"},
        {"cursor": "Y3JfMA"},
        {"types": "nonsense"},
        {"types": ""},
        {"limit": 0},
        {"limit": 1001},
        {"a": 1},
        {"change_request_id": "x"},
    ],
)
def test_a_question_that_makes_no_sense_is_refused(idle_api: Api, query: dict[str, Any]):
    answer = idle_api.acme.get(PATH, params=query)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid_request")
    assert answer.json()["errors"][0]["parameter"] == next(iter(query))


def test_it_needs_a_key(idle_api: Api):
    assert idle_api.nobody.get(PATH).status_code == 401
