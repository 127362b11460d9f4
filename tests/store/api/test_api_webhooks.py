"""Webhook endpoints over REST."""

import base64
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy.orm import Session

from service.domain.outcomes import Notice, Wait
from service.domain.reasons import Reason
from service.domain.states import State
from service.domain.webhooks import Fault
from service.store import events, outbox, transitions
from service.store.database import Database
from service.store.outbox import Attempt, Result
from service.store.tables import ChangeRequest, WebhookEndpoint
from service.store.webhook_endpoints import MOST_ENDPOINTS
from tests.support import rows
from tests.support.routes import problem
from tests.support.served_api import Api
from tests.support.threads import in_background, wait_until_blocked

PATH = "/v1/webhook-endpoints"
URL = "https://hooks.example.com/countersign"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
Json = dict[str, Any]


def create(api: Api, url: str = URL, **members: Any) -> Json:
    answer = api.acme.post(PATH, json={"url": url, **members})
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


def read(api: Api, endpoint_id: str) -> Json:
    answer = api.acme.get(f"{PATH}/{endpoint_id}")
    assert answer.status_code == 200, answer.text
    shown: Json = answer.json()
    return shown


def tell(database: Database, workspace_id: str, count: int = 1) -> str:
    """Append events to a new change request; its id."""
    request_id = rows.change_request(database, workspace_id)
    lease = rows.lease(database, ChangeRequest, request_id)
    notices = tuple((Notice.ALERT, {"number": number}) for number in range(count))
    transitions.apply(database, lease, State.RECEIVED, Wait(0, Reason.PHALA_BUSY, notices=notices), rows.NOW)
    return request_id


def record(database: Database, endpoint_id: str, attempt: Attempt, retry: float | None = None) -> None:
    """Record an attempt of everything that is due."""
    lease = rows.lease(database, WebhookEndpoint, endpoint_id)
    sent = outbox.load(database, lease, rows.NOW, 1000).deliveries
    outbox.record(database, lease, [Result(one.id, attempt, retry) for one in sent], disable_seconds=1e9)
    outbox.give_back(database, lease, 0, unanswered=False)


TAKEN = Attempt(rows.NOW, 5, 204, "")
REFUSED = Attempt(rows.NOW, 84, 503, "restarting", Fault.BAD_STATUS)


def listed(api: Api, endpoint_id: str, **query: Any) -> list[Json]:
    answer = api.acme.get(f"{PATH}/{endpoint_id}/deliveries", params=query)
    assert answer.status_code == 200, answer.text
    items: list[Json] = answer.json()["items"]
    return items


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


class TestHistory:
    def test_deliveries_are_shown_with_their_attempts(self, api: Api, database: Database, workspaces: dict[str, str]):
        made = create(api)
        request_id = tell(database, workspaces["acme"])
        record(database, made["id"], REFUSED, 3600)
        (delivery,) = listed(api, made["id"])
        assert (delivery["change_request_id"], delivery["event_type"]) == (request_id, "change_request.alert")
        assert (delivery["state"], delivery["attempt_count"], delivery["delivered_at"]) == ("pending", 1, None)
        (attempt,) = delivery["attempts"]
        assert attempt.pop("fault")["code"] == "bad_status"
        assert attempt == {
            "attempted_at": "2026-03-01T12:00:00Z", "duration_ms": 84, "status": 503, "response": "restarting",
        }  # fmt: skip
        assert read(api, made["id"])["failing_since"] == "2026-03-01T12:00:00Z"

    def test_they_are_paged_newest_first_and_filtered(self, api: Api, database: Database, workspaces: dict[str, str]):
        made = create(api)
        tell(database, workspaces["acme"], 5)
        record(database, made["id"], TAKEN)
        tell(database, workspaces["acme"], 2)
        assert len(listed(api, made["id"], state="pending")) == 2
        assert len(listed(api, made["id"], state="delivered")) == 5
        seen: list[str] = []
        query: Json = {"limit": 3}
        while True:
            page = api.acme.get(f"{PATH}/{made['id']}/deliveries", params=query).json()
            seen += [one["id"] for one in page["items"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert seen == [one["id"] for one in listed(api, made["id"], limit=100)]
        assert len(set(seen)) == 7
        cursor = {"cursor": "nonsense"}
        problem(api.acme.get(f"{PATH}/{made['id']}/deliveries", params=cursor), 422, "invalid_request")

    def test_only_the_newest_attempts_are_shown(self, api: Api, database: Database, workspaces: dict[str, str]):
        made = create(api)
        tell(database, workspaces["acme"])
        for number in range(25):
            record(database, made["id"], Attempt(rows.NOW, number, 500, "", Fault.BAD_STATUS), 0.0)
        (delivery,) = listed(api, made["id"])
        assert delivery["attempt_count"] == 25
        assert [attempt["duration_ms"] for attempt in delivery["attempts"]] == list(range(5, 25))

    def test_a_test_event_goes_to_this_endpoint_only_whatever_it_filters(self, api: Api):
        made = create(api, event_types=["change_request.failed"])
        other = create(api, URL + "/2")
        answer = api.acme.post(f"{PATH}/{made['id']}/test")
        assert (answer.status_code, answer.json()["event_type"]) == (202, "webhook_endpoint.test")
        assert listed(api, made["id"]) == [answer.json()]
        assert listed(api, other["id"]) == []


class TestAgain:
    def test_a_delivery_is_sent_again_whatever_became_of_it(
        self, api: Api, database: Database, workspaces: dict[str, str]
    ):
        made = create(api)
        tell(database, workspaces["acme"])
        record(database, made["id"], TAKEN)
        (delivery,) = listed(api, made["id"])
        answer = api.acme.post(f"{PATH}/{made['id']}/deliveries/{delivery['id']}/resend")
        assert answer.status_code == 202
        assert (answer.json()["state"], len(answer.json()["attempts"])) == ("pending", 1)
        record(database, made["id"], TAKEN)
        (again,) = listed(api, made["id"])
        assert (again["state"], again["attempt_count"], again["event_id"]) == ("delivered", 2, delivery["event_id"])

    def test_a_delivery_of_another_endpoint_is_not_found(
        self, api: Api, database: Database, workspaces: dict[str, str]
    ):
        made, other = create(api), create(api, URL + "/2")
        tell(database, workspaces["acme"])
        (delivery,) = listed(api, other["id"])
        answer = api.acme.post(f"{PATH}/{made['id']}/deliveries/{delivery['id']}/resend")
        problem(answer, 404, "not_found")

    def test_a_range_is_replayed_by_times_and_events(self, api: Api, database: Database, workspaces: dict[str, str]):
        tell(database, workspaces["acme"], 3)
        tell(database, workspaces["other"], 3)
        made = create(api)
        own = f"{PATH}/{made['id']}/replay"
        assert listed(api, made["id"]) == []
        everything = api.acme.get("/v1/events").json()["items"]
        assert api.acme.post(own, json={"since": "2026-03-01T13:00:01+01:00"}).json()["deliveries"] == 0
        whole = api.acme.post(own, json={"since": "2026-03-01T13:00:00+01:00"}).json()
        assert (whole["deliveries"], whole["complete"], whole["next_since"]) == (3, True, None)
        assert {one["event_id"] for one in listed(api, made["id"])} == {one["id"] for one in everything}
        record(database, made["id"], TAKEN)
        middle = everything[1]["id"]
        part = api.acme.post(own, json={"since": middle, "until": middle}).json()
        assert part["deliveries"] == 1
        assert [one["event_id"] for one in listed(api, made["id"], state="pending")] == [middle]
        missed = api.acme.post(own, json={"since": everything[0]["id"], "undelivered_only": True}).json()
        assert missed["deliveries"] == 1

    def test_the_filter_holds_and_tests_are_left_out(self, api: Api, database: Database, workspaces: dict[str, str]):
        made = create(api, event_types=["change_request.received"])
        tell(database, workspaces["acme"])
        api.acme.post(f"{PATH}/{made['id']}/test")
        answer = api.acme.post(f"{PATH}/{made['id']}/replay", json={"since": "2026-01-01T00:00:00Z"})
        assert answer.json()["deliveries"] == 0

    def test_a_range_is_bounded_and_says_where_to_go_on(self, api: Api, database: Database, workspaces: dict[str, str]):
        made = create(api)
        tell(database, workspaces["acme"], 1003)
        own = f"{PATH}/{made['id']}/replay"
        first = api.acme.post(own, json={"since": "2026-01-01T00:00:00Z"}).json()
        assert (first["deliveries"], first["complete"]) == (1000, False)
        rest = api.acme.post(own, json={"since": first["next_since"]}).json()
        assert (rest["deliveries"], rest["complete"]) == (3, True)

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({}, "#/since"),
            ({"since": "yesterday"}, "#/since"),
            ({"since": "2026-03-01T12:00:00"}, "#/since"),
            ({"since": "evt_" + "0" * 32}, "#/since"),
            ({"since": "2026-03-01T12:00:00Z", "until": "evt_" + "0" * 32}, "#/until"),
            ({"since": "2026-03-01T12:00:00Z", "until": "soon"}, "#/until"),
        ],
    )
    def test_a_range_that_makes_no_sense_is_refused(self, api: Api, body: Json, pointer: str):
        made = create(api)
        answer = problem(api.acme.post(f"{PATH}/{made['id']}/replay", json=body), 422, "invalid_request")
        assert answer["errors"][0]["pointer"] == pointer


class TestDisabled:
    @pytest.fixture
    def disabled(self, api: Api, database: Database, workspaces: dict[str, str]) -> Json:
        made = create(api)
        tell(database, workspaces["acme"], 2)
        record(database, made["id"], Attempt(rows.NOW, 5, 410, "moved", Fault.BAD_STATUS))
        return made

    def test_it_says_why_with_advice(self, api: Api, disabled: Json):
        shown = read(api, disabled["id"])
        assert shown["state"] == "disabled"
        assert shown["disabled"]["code"] == "receiver_gone"
        assert "resume" in shown["disabled"]["advice"]
        assert (shown["disabled"]["detail"], shown["disabled"]["at"]) == ("HTTP 410: moved", "2026-03-01T12:00:00Z")

    def test_nothing_is_sent_until_it_is_resumed(
        self, api: Api, database: Database, workspaces: dict[str, str], disabled: Json
    ):
        own = f"{PATH}/{disabled['id']}"
        (delivery, _) = listed(api, disabled["id"])
        problem(api.acme.post(f"{own}/test"), 409, "webhook_endpoint_disabled")
        problem(api.acme.post(f"{own}/deliveries/{delivery['id']}/resend"), 409, "webhook_endpoint_disabled")
        replay = {"since": "2026-01-01T00:00:00Z"}
        problem(api.acme.post(f"{own}/replay", json=replay), 409, "webhook_endpoint_disabled")
        tell(database, workspaces["acme"])
        assert len(listed(api, disabled["id"])) == 2
        resumed = api.acme.patch(own, json={"paused": False}).json()
        assert (resumed["state"], resumed["disabled"], resumed["failing_since"]) == ("active", None, None)
        assert api.acme.post(f"{own}/replay", json={**replay, "undelivered_only": True}).json()["deliveries"] == 4


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


def test_an_event_written_while_its_endpoint_is_deleted_is_not_left_pending(
    api: Api, database: Database, workspaces: dict[str, str]
):
    made = create(api)
    request_id = rows.change_request(database, workspaces["acme"])
    delete = in_background(lambda: api.acme.delete(f"{PATH}/{made['id']}").json())
    with Session(database.engine) as session:
        row = session.get_one(ChangeRequest, request_id)
        events.append(database, session, row, name=Notice.ALERT, now=rows.NOW)
        with delete as deleted:
            wait_until_blocked(database, 1)
            session.commit()
            assert deleted.result()["state"] == "deleted"
    assert [one["state"] for one in listed(api, made["id"])] == ["dropped"]
