"""Deliveries of webhook endpoints over REST: their history, again, and none to what is disabled or deleted."""

import pytest
from sqlalchemy.orm import Session

from service.domain.deliveries import Attempt
from service.domain.outcomes import Notice
from service.domain.webhooks import Fault
from service.store import events
from service.store.database import Database
from service.store.tables import ChangeRequest
from tests.support import rows
from tests.support.routes import problem
from tests.support.served_api import Api
from tests.support.threads import in_background, wait_until_blocked
from tests.support.webhook_endpoints import PATH, REFUSED, TAKEN, URL, Json, create, listed, read, record, tell


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


def test_an_event_written_while_its_endpoint_is_deleted_is_not_left_pending(
    api: Api, database: Database, workspaces: dict[str, str]
):
    made = create(api)
    request_id = rows.change_request(database, workspaces["acme"])
    delete = in_background(lambda: api.acme.delete(f"{PATH}/{made['id']}").json())
    with Session(database.engine) as session:
        row = session.get_one(ChangeRequest, request_id)
        events.append(database, session, row, name=Notice.ALERT, actor=rows.ACTOR, now=rows.NOW)
        with delete as deleted:
            wait_until_blocked(database, 1)
            session.commit()
            assert deleted.result()["state"] == "deleted"
    assert [one["state"] for one in listed(api, made["id"])] == ["dropped"]
