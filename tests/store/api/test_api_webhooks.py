"""Webhook endpoints over REST."""

import base64
from datetime import timedelta

import pytest
from pydantic import SecretStr

from service.domain.deliveries import Attempt
from service.domain.webhooks import Fault
from service.store import outbox
from service.store.database import Database
from service.store.outbox import Result
from service.store.tables import WebhookEndpoint
from service.store.webhook_endpoints import MOST_ENDPOINTS
from tests.support import rows
from tests.support.routes import problem
from tests.support.served_api import Api
from tests.support.webhook_endpoints import PATH, REFUSED, SECRET, TAKEN, URL, Json, create, listed, read, record, tell


def test_an_endpoint_is_made_with_a_secret_that_is_shown_once(api: Api, database: Database):
    answer = api.acme.post(PATH, json={"url": URL, "description": "Deploy bot", "event_types": ["change_request.*"]})
    made = answer.json()
    assert answer.headers["location"] == made["links"]["self"] == f"https://countersign.example{PATH}/{made['id']}"
    secret = made.pop("secret")
    assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"))) <= 64
    assert (made["state"], made["managed_by"], made["disabled"]) == ("active", "api", None)
    assert read(api, made["id"]) == made
    assert api.acme.get(PATH).json()["items"] == [made]
    sealed = rows.read(database, WebhookEndpoint, made["id"]).secret_sealed
    opened = database.sealer.open(sealed, purpose="webhook_secret", row_id=made["id"])
    assert opened.get_secret_value() == secret


def test_a_secret_may_be_given(api: Api):
    assert create(api, secret=SECRET)["secret"] == SECRET


@pytest.mark.parametrize(
    ("body", "pointer", "says"),
    [
        ({}, "#/url", "is required"),
        ({"url": ""}, "#/url", "at least 1"),
        ({"url": "http://hooks.example.com/"}, "#/url", "must be https"),
        ({"url": "https://127.0.0.1/"}, "#/url", "not public"),
        ({"url": "https://2130706433/"}, "#/url", "host plainly"),
        ({"url": "https://user:pw@hooks.example.com/"}, "#/url", "user name or password"),
        ({"url": "https://hooks.example.com:22/"}, "#/url", "port 443"),
        ({"url": "https://inside.example.com/"}, "#/url", "not public"),
        ({"url": URL, "secret": "whsec_c2hvcnQ="}, "#/secret", "24 to 64"),
        ({"url": URL, "secret": "no secret"}, "#/secret", "whsec_"),
        ({"url": URL, "event_types": ["change_request.exploded"]}, "#/event_types/0", "type of event"),
        ({"url": URL, "event_types": ["change*"]}, "#/event_types/0", "type of event"),
        ({"url": URL, "event_types": "change_request.*"}, "#/event_types", "list"),
        ({"url": URL, "description": "two\nlines"}, "#/description", "one line"),
        ({"url": URL, "name": "x"}, "#/name", "unknown member"),
    ],
)
def test_what_cannot_be_an_endpoint_is_refused(idle_api: Api, body: Json, pointer: str, says: str):
    refusal = problem(idle_api.acme.post(PATH, json=body), 422, "invalid_request")
    (error,) = refusal["errors"]
    assert error["pointer"] == pointer
    assert says in error["detail"]
    assert "no secret" not in str(refusal)


def test_a_name_that_does_not_resolve_yet_is_taken(api: Api):
    assert create(api, "https://hooks.example.com:8443/later")["state"] == "active"


def test_a_url_has_one_endpoint_and_a_workspace_a_bounded_number(api: Api):
    made = create(api)
    problem(api.acme.post(PATH, json={"url": URL}), 409, "webhook_endpoint_exists")
    assert api.other.post(PATH, json={"url": URL}).status_code == 201
    second = create(api, URL + "/2")
    answer = api.acme.patch(f"{PATH}/{second['id']}", json={"url": URL})
    problem(answer, 409, "webhook_endpoint_exists")
    assert api.acme.delete(f"{PATH}/{made['id']}").status_code == 200
    assert create(api)["id"] != made["id"]
    for number in range(MOST_ENDPOINTS - 2):
        create(api, f"{URL}?{number}")
    problem(api.acme.post(PATH, json={"url": URL + "/more"}), 409, "too_many_webhook_endpoints")


def test_what_cannot_be_an_id_is_not_found(idle_api: Api):
    for path in ("ep_x", "%00", f"ep_{'0' * 32}/deliveries/x/resend"):
        problem(idle_api.acme.request("POST" if "/" in path else "GET", f"{PATH}/{path}"), 404, "not_found")


class TestChange:
    def test_members_change_one_by_one(self, api: Api):
        made = create(api, description="before")
        own = f"{PATH}/{made['id']}"
        assert api.acme.patch(own, json={"url": URL + "/new"}).json()["url"] == URL + "/new"
        assert api.acme.patch(own, json={"event_types": ["webhook_endpoint.*"]}).status_code == 200
        shown = api.acme.patch(own, json={"description": None}).json()
        assert (shown["description"], shown["event_types"]) == (None, ["webhook_endpoint.*"])
        assert shown["url"] == URL + "/new"

    @pytest.mark.parametrize(
        "body", [{}, {"url": None}, {"event_types": None}, {"paused": None}, {"paused": "yes"}, {"state": "active"}]
    )
    def test_a_change_that_makes_no_sense_is_refused(self, api: Api, body: Json):
        made = create(api)
        problem(api.acme.patch(f"{PATH}/{made['id']}", json=body), 422, "invalid_request")

    def test_a_new_url_is_checked_like_the_first(self, api: Api):
        made = create(api)
        problem(api.acme.patch(f"{PATH}/{made['id']}", json={"url": "https://10.0.0.1/"}), 422, "invalid_request")

    def test_pausing_holds_deliveries_and_resuming_lets_them_go_in_order(
        self, api: Api, database: Database, workspaces: dict[str, str]
    ):
        made = create(api)
        assert api.acme.patch(f"{PATH}/{made['id']}", json={"paused": True}).json()["state"] == "paused"
        tell(database, workspaces["acme"], 3)
        assert outbox.ring_due(database, 10) == []
        assert [one["state"] for one in listed(api, made["id"])] == ["pending"] * 3
        assert api.acme.patch(f"{PATH}/{made['id']}", json={"paused": False}).json()["state"] == "active"
        assert outbox.ring_due(database, 10) == [made["id"]]
        lease = rows.lease(database, WebhookEndpoint, made["id"])
        bodies = [one.body for one in outbox.load(database, lease, rows.NOW, 10).deliveries]
        assert [b'"sequence":%d' % number in body for number, body in enumerate(bodies, start=1)] == [True] * 3

    def test_a_pause_while_a_worker_sends_stays(self, api: Api, database: Database, workspaces: dict[str, str]):
        made = create(api)
        tell(database, workspaces["acme"])
        lease = rows.lease(database, WebhookEndpoint, made["id"])
        (sent,) = outbox.load(database, lease, rows.NOW, 10).deliveries
        api.acme.patch(f"{PATH}/{made['id']}", json={"paused": True})
        assert not outbox.record(database, lease, [Result(sent.id, TAKEN, None)], disable_seconds=1e9)
        outbox.give_back(database, lease, 0, unanswered=False)
        assert read(api, made["id"])["state"] == "paused"


class TestDelete:
    def test_it_gets_nothing_more_and_its_history_stays(self, api: Api, database: Database, workspaces: dict[str, str]):
        made = create(api)
        tell(database, workspaces["acme"], 2)
        assert api.acme.delete(f"{PATH}/{made['id']}").json()["state"] == "deleted"
        assert api.acme.delete(f"{PATH}/{made['id']}").json()["state"] == "deleted"
        assert [one["state"] for one in listed(api, made["id"])] == ["dropped"] * 2
        assert read(api, made["id"])["state"] == "deleted"
        assert api.acme.get(PATH).json()["items"] == []
        tell(database, workspaces["acme"])
        assert len(listed(api, made["id"])) == 2
        assert rows.read(database, WebhookEndpoint, made["id"]).secret_sealed == b""
        own = f"{PATH}/{made['id']}"
        (delivery, _) = listed(api, made["id"])
        for answer in (
            api.acme.patch(own, json={"paused": False}),
            api.acme.post(f"{own}/test"),
            api.acme.post(f"{own}/rotate-secret", json={}),
            api.acme.post(f"{own}/deliveries/{delivery['id']}/resend"),
            api.acme.post(f"{own}/replay", json={"since": "2026-01-01T00:00:00Z"}),
        ):
            problem(answer, 409, "webhook_endpoint_deleted")

    def test_what_a_worker_was_sending_is_kept_as_it_went(
        self, api: Api, database: Database, workspaces: dict[str, str]
    ):
        made = create(api)
        tell(database, workspaces["acme"], 2)
        lease = rows.lease(database, WebhookEndpoint, made["id"])
        first, second = outbox.load(database, lease, rows.NOW, 10).deliveries
        api.acme.delete(f"{PATH}/{made['id']}")
        results = [Result(first.id, TAKEN, None), Result(second.id, REFUSED, 5.0)]
        assert not outbox.record(database, lease, results, disable_seconds=1e9)
        assert [one["state"] for one in listed(api, made["id"])] == ["dropped", "delivered"]


class TestRotation:
    def test_both_secrets_sign_until_the_old_one_ends(self, api: Api, database: Database, workspaces: dict[str, str]):
        made = create(api)
        tell(database, workspaces["acme"])
        rotated = api.acme.post(f"{PATH}/{made['id']}/rotate-secret", json={}).json()
        assert rotated["secret"] != made["secret"]
        assert rotated["previous_secret_expires_at"] == "2026-03-02T12:00:00Z"
        lease = rows.lease(database, WebhookEndpoint, made["id"])
        for hours, signing in ((23, [rotated["secret"], made["secret"]]), (24, [rotated["secret"]])):
            batch = outbox.load(database, lease, rows.NOW + timedelta(hours=hours), 10)
            assert [secret.get_secret_value() for secret in outbox.secrets(database, batch)] == signing

    def test_without_an_overlap_the_old_one_ends_at_once(self, api: Api, database: Database):
        made = create(api)
        body = {"secret": SECRET, "overlap_seconds": 0}
        assert api.acme.post(f"{PATH}/{made['id']}/rotate-secret", json=body).json()["secret"] == SECRET
        lease = rows.lease(database, WebhookEndpoint, made["id"])
        batch = outbox.load(database, lease, rows.NOW, 10)
        assert [secret.get_secret_value() for secret in outbox.secrets(database, batch)] == [SECRET]

    @pytest.mark.parametrize("body", [{"overlap_seconds": -1}, {"overlap_seconds": 10**6}, {"secret": "x"}])
    def test_a_rotation_that_makes_no_sense_is_refused(self, api: Api, body: Json):
        made = create(api)
        problem(api.acme.post(f"{PATH}/{made['id']}/rotate-secret", json=body), 422, "invalid_request")


class TestOfTheFile:
    HOOK = (URL, SecretStr(SECRET))

    @pytest.fixture
    def of_file(self, api: Api, database: Database) -> Json:
        rows.workspace(database, "acme", webhooks=[self.HOOK])
        (shown,) = api.acme.get(PATH).json()["items"]
        assert shown["managed_by"] == "file"
        made: Json = shown
        return made

    def test_it_is_read_paused_and_tested_but_not_changed(self, api: Api, of_file: Json):
        own = f"{PATH}/{of_file['id']}"
        for answer in (
            api.acme.patch(own, json={"description": "mine"}),
            api.acme.delete(own),
            api.acme.post(f"{own}/rotate-secret", json={}),
        ):
            problem(answer, 409, "webhook_endpoint_of_file")
        assert api.acme.patch(own, json={"paused": True}).json()["state"] == "paused"
        assert api.acme.post(f"{own}/test").status_code == 202

    def test_applying_the_file_leaves_endpoints_of_the_api_alone(self, api: Api, database: Database, of_file: Json):
        made = create(api, URL + "/api")
        rows.workspace(database, "acme", webhooks=[])
        (left,) = api.acme.get(PATH).json()["items"]
        assert (left["id"], left["managed_by"]) == (made["id"], "api")
        assert read(api, of_file["id"])["state"] == "deleted"

    def test_what_was_written_for_one_that_the_file_does_not_name_any_more_is_still_sent(
        self, api: Api, database: Database, workspaces: dict[str, str], of_file: Json
    ):
        tell(database, workspaces["acme"])
        rows.workspace(database, "acme", webhooks=[])
        tell(database, workspaces["acme"])
        assert outbox.ring_due(database, 10) == [of_file["id"]]
        record(database, of_file["id"], TAKEN)
        assert [one["state"] for one in listed(api, of_file["id"])] == ["delivered"]

    def test_the_file_takes_over_an_endpoint_that_it_names(self, api: Api, database: Database):
        made = create(api, event_types=["change_request.failed"])
        rows.workspace(database, "acme", webhooks=[self.HOOK])
        (shown,) = api.acme.get(PATH).json()["items"]
        assert (shown["id"], shown["managed_by"]) == (made["id"], "file")
        assert shown["previous_secret_expires_at"] is not None

    def test_applying_it_again_keeps_a_pause_and_resumes_what_was_disabled(
        self, api: Api, database: Database, workspaces: dict[str, str], of_file: Json
    ):
        api.acme.patch(f"{PATH}/{of_file['id']}", json={"paused": True})
        rows.workspace(database, "acme", webhooks=[self.HOOK])
        assert read(api, of_file["id"])["state"] == "paused"
        api.acme.patch(f"{PATH}/{of_file['id']}", json={"paused": False})
        tell(database, workspaces["acme"])
        record(database, of_file["id"], Attempt(rows.NOW, 5, 410, "", Fault.BAD_STATUS))
        assert read(api, of_file["id"])["state"] == "disabled"
        rows.workspace(database, "acme", webhooks=[self.HOOK])
        assert read(api, of_file["id"])["state"] == "active"
