"""Retry, release, and the freeze switch."""

from typing import Any

import httpx
import pytest

from service.api.examples import SUBMIT_PATCH
from service.domain.api_keys import Scope, mint
from service.domain.gates import CommitPolicy
from service.domain.states import TERMINAL, State
from service.store.database import Database
from service.store.tables import ChangeRequest
from tests.support import members, rows
from tests.support.routes import problem
from tests.support.served_api import Api

PATH = "/v1/change-requests"
FREEZE = "/v1/workspace/freeze"


def ended(api: Api, database: Database, target: State = State.CANCELLED, **body: Any) -> dict[str, Any]:
    answer = api.acme.post(PATH, json={**SUBMIT_PATCH, **body})
    assert answer.status_code == 202, answer.text
    members.move(database, answer.json()["id"], State.RECEIVED, target)
    shown: dict[str, Any] = answer.json()
    return shown


def retry(api: Api, request_id: str, **body: Any) -> httpx.Response:
    return api.acme.post(f"{PATH}/{request_id}/retry", json=body)


class TestRetry:
    def test_it_is_a_request_of_its_own_with_the_same_patch(self, api: Api, database: Database):
        first = ended(api, database, commit_policy="hold", deadline_seconds=7200)
        answer = retry(api, first["id"])
        assert answer.status_code == 202, answer.text
        again = answer.json()
        assert answer.headers["location"] == again["links"]["self"]
        assert (again["retry_of"], again["state"], again["intake"]) == (first["id"], "received", "patch")
        same = ("title", "change_reason", "change_links", "metadata", "patch", "commit_policy", "deadline_at")
        assert [again[name] for name in same] == [first[name] for name in same]
        assert rows.read(database, ChangeRequest, again["id"]).patch == SUBMIT_PATCH["patch"]
        assert api.acme.get(PATH, params={"retry_of": first["id"]}).json()["items"] == [again]

    def test_it_stays_with_the_cvm_that_the_name_stood_for(self, api: Api, database: Database):
        first = ended(api, database)
        uuid = "3f2b8c14-5a6d-4e7f-8a9b-0c1d2e3f4a5b"
        with database.transaction() as session:
            session.get_one(ChangeRequest, first["id"]).vm_uuid = uuid
        assert retry(api, first["id"]).json()["cvm"]["id"] == uuid

    def test_twice_at_once_is_a_conflict(self, api: Api, database: Database):
        first = ended(api, database)
        again = retry(api, first["id"]).json()
        refused = problem(retry(api, first["id"]), 409, "cvm_busy")
        assert refused["change_request"]["id"] == again["id"]
        third = retry(api, first["id"], on_conflict="supersede", deadline_seconds=60).json()
        assert (third["supersedes"], third["deadline_at"]) == (again["id"], "2026-03-01T12:01:00Z")

    @pytest.mark.parametrize("state", sorted(set(State) - TERMINAL | {State.COMPLETED}))
    def test_there_must_be_something_to_try_again(
        self, api: Api, database: Database, workspaces: dict[str, str], state: State
    ):
        request_id = rows.change_request(database, workspaces["acme"], state)
        assert str(state) in problem(retry(api, request_id), 409, "nothing_to_retry")["detail"]

    @pytest.mark.parametrize("state", sorted(TERMINAL - {State.COMPLETED}))
    def test_any_other_end_will_do(self, api: Api, database: Database, workspaces: dict[str, str], state: State):
        request_id = rows.change_request(database, workspaces["acme"], state)
        assert retry(api, request_id).status_code == 202

    @pytest.mark.parametrize("intake", ["prepared", "webhook"])
    def test_without_the_patch_it_must_be_prepared_again(
        self, api: Api, database: Database, workspaces: dict[str, str], intake: str
    ):
        columns = {"intake": intake, "patch": None}
        request_id = rows.change_request(database, workspaces["acme"], State.EXPIRED, **columns)
        assert "Prepare the same change again" in problem(retry(api, request_id), 409, "prepare_needed")["detail"]

    def test_what_was_permitted_then_must_be_permitted_now(
        self, api: Api, database: Database, workspaces: dict[str, str]
    ):
        columns = {"allow_without_approval": True}
        request_id = rows.change_request(database, workspaces["acme"], State.EXPIRED, **columns)
        problem(retry(api, request_id), 403, "not_permitted")

    def test_it_does_not_loosen_what_somebody_else_might(
        self, api: Api, database: Database, workspaces: dict[str, str]
    ):
        rows.workspace(database, "acme", commit_policy=CommitPolicy.HOLD)
        key = mint(b"submitter".ljust(32))
        rows.api_key(database, workspaces["acme"], key, Scope.SUBMIT)
        request_id = rows.change_request(database, workspaces["acme"], State.EXPIRED, commit_policy="auto")
        headers = {"Authorization": f"Bearer {key}"}
        answer = api.nobody.post(f"{PATH}/{request_id}/retry", headers=headers)
        assert (answer.status_code, answer.json()["commit_policy"]) == (202, None)


class TestRelease:
    def test_it_says_who_released_it_and_when(self, api: Api, database: Database, workspaces: dict[str, str]):
        request_id = rows.change_request(database, workspaces["acme"], State.REGISTERED, commit_policy="hold")
        answer = api.acme.post(f"{PATH}/{request_id}/release")
        assert answer.status_code == 202
        assert answer.json()["released_at"] == "2026-03-01T12:00:00Z"
        assert answer.json()["released_by"].startswith("key_")
        (event,) = api.acme.get(f"{PATH}/{request_id}/events").json()["items"]
        assert (event["type"], event["actor"]["id"]) == ("change_request.released", answer.json()["released_by"])

    @pytest.mark.parametrize(("state", "slug"), [(State.COMMITTED, "commit_started"), (State.FAILED, "already_ended")])
    def test_it_may_be_too_late(
        self, api: Api, database: Database, workspaces: dict[str, str], state: State, slug: str
    ):
        request_id = rows.change_request(database, workspaces["acme"], state)
        problem(api.acme.post(f"{PATH}/{request_id}/release"), 409, slug)


class TestFreeze:
    def test_it_is_switched_and_read(self, api: Api):
        off = {"object": "commit_freeze", "frozen": False, "frozen_at": None, "frozen_by": None, "reason": None}
        assert api.acme.get(FREEZE).json() == off
        on = api.acme.post(FREEZE, json={"reason": "an incident"}).json()
        assert (on["frozen"], on["frozen_at"], on["reason"]) == (True, "2026-03-01T12:00:00Z", "an incident")
        assert on["frozen_by"].startswith("key_")
        assert api.acme.get(FREEZE).json() == on
        assert api.other.get(FREEZE).json() == off
        said_anew = api.acme.post(FREEZE, json={"reason": "another"}).json()
        assert said_anew["reason"] == "another"
        for _ in range(2):
            assert api.acme.delete(FREEZE).json() == off
        assert api.acme.get(FREEZE).json() == off

    @pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "a\x1b[2J"}, {"reason": None}, {"why": "x"}])
    def test_somebody_must_say_why(self, idle_api: Api, body: dict[str, Any]):
        problem(idle_api.acme.post(FREEZE, json=body), 422, "invalid_request")
