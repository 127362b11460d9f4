"""One live change request per CVM, as clients meet it; and why a change is made."""

from typing import Any

import pytest

from service.api.examples import SUBMIT_PATCH, SUBMIT_PREPARED
from service.domain.api_keys import Scope, mint
from service.domain.gates import CommitPolicy
from service.domain.states import State
from service.store.database import Database
from service.store.tables import ChangeRequest
from tests.support import rows
from tests.support.routes import problem
from tests.support.served_api import Api

PATH = "/v1/change-requests"
SUBMITTER = mint(b"submitter".ljust(32))


@pytest.fixture
def submitter(database: Database, workspaces: dict[str, str]) -> dict[str, str]:
    """Headers of a key of scope ``submit``."""
    rows.api_key(database, workspaces["acme"], SUBMITTER, Scope.SUBMIT)
    return {"Authorization": f"Bearer {SUBMITTER}"}


def submit(api: Api, **members: Any) -> dict[str, Any]:
    answer = api.acme.post(PATH, json={**SUBMIT_PATCH, **members})
    assert answer.status_code == 202, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


class TestConflict:
    def test_the_live_one_is_named_with_its_link(self, api: Api):
        first = submit(api)
        body = problem(api.acme.post(PATH, json=SUBMIT_PATCH), 409, "cvm_busy")
        assert body["change_request"] == {"id": first["id"], "url": first["links"]["self"]}
        assert first["id"] in body["detail"]
        assert [one["id"] for one in api.acme.get(PATH).json()["items"]] == [first["id"]]

    def test_it_can_be_superseded(self, api: Api, database: Database):
        first = submit(api)
        second = submit(api, on_conflict="supersede")
        assert second["supersedes"] == first["id"]
        shown = api.acme.get(f"{PATH}/{first['id']}").json()
        assert (shown["state"], shown["superseded_by"]) == ("received", second["id"])
        assert rows.is_due(database, ChangeRequest, first["id"])

    def test_not_once_its_commit_has_started(self, api: Api, database: Database, workspaces: dict[str, str]):
        columns = {"cvm_id": "my-agent", "commit_attempted_at": rows.NOW}
        older = rows.change_request(database, workspaces["acme"], State.REGISTERED, **columns)
        answer = api.acme.post(PATH, json={**SUBMIT_PATCH, "on_conflict": "supersede"})
        assert problem(answer, 409, "commit_started")["change_request"]["id"] == older

    def test_the_vm_uuid_of_a_prepared_update_is_known(self, api: Api, database: Database, workspaces: dict[str, str]):
        uuid = "3f2b8c14-5a6d-4e7f-8a9b-0c1d2e3f4a5b"
        older = rows.change_request(database, workspaces["acme"], State.PROPOSED, vm_uuid=uuid)
        for body in (SUBMIT_PREPARED, {**SUBMIT_PATCH, "cvm_id": uuid.replace("-", "").upper()}):
            answer = api.acme.post(PATH, json=body)
            assert problem(answer, 409, "cvm_busy")["change_request"]["id"] == older

    def test_another_workspaces_request_is_neither_named_nor_in_the_way(self, api: Api):
        submit(api)
        assert api.other.post(PATH, json=SUBMIT_PATCH).status_code == 202


class TestWhy:
    def test_it_is_stored_answered_and_told(self, api: Api):
        why = {
            "reason": "Two lines,\nwith a tab\t.",
            "links": ["https://github.com/acme/agent/pull/7?diff=split#x", "https://ci.example:8443/runs/1"],
            "metadata": {"ticket": "AG-1", "empty": "", "Grüße": "你好"},
        }
        shown = submit(api, **why)
        assert (shown["change_reason"], shown["change_links"], shown["metadata"]) == tuple(why.values())
        (event,) = api.acme.get(f"{PATH}/{shown['id']}/events").json()["items"]
        told = (event["data"]["change_reason"], event["data"]["change_links"], event["data"]["metadata"])
        assert told == tuple(why.values())

    def test_large_metadata_stays_out_of_events(self, api: Api):
        large = {f"key {number}": "x" * 500 for number in range(50)}
        shown = submit(api, metadata=large)
        assert shown["metadata"] == large
        assert api.acme.get(f"{PATH}/{shown['id']}/events").json()["items"][0]["data"]["metadata"] is None

    def test_without_any_of_it(self, api: Api):
        body = {"cvm_id": "a", "patch": {"vcpu": 1}}
        shown = api.acme.post(PATH, json=body).json()
        assert (shown["change_reason"], shown["change_links"], shown["metadata"]) == (None, [], {})


class TestPolicy:
    def test_a_request_may_tighten(self, api: Api, submitter: dict[str, str]):
        body = {**SUBMIT_PATCH, "commit_policy": "hold", "not_before": "2026-03-02T00:00:00+02:00"}
        shown = api.nobody.post(PATH, json=body, headers=submitter).json()
        assert (shown["commit_policy"], shown["not_before"]) == ("hold", "2026-03-01T22:00:00Z")

    def test_to_loosen_needs_the_scope_that_releases(self, api: Api, database: Database, submitter: dict[str, str]):
        rows.workspace(database, "acme", commit_policy=CommitPolicy.HOLD)
        body = {**SUBMIT_PATCH, "commit_policy": "auto"}
        refused = problem(api.nobody.post(PATH, json=body, headers=submitter), 403, "not_permitted")
        assert refused["errors"][0]["pointer"] == "#/commit_policy"
        assert submit(api, commit_policy="auto")["commit_policy"] == "auto"

    def test_auto_where_that_is_the_rule_follows_the_workspace(self, api: Api, submitter: dict[str, str]):
        """The workspace may hold by the time the commit is due."""
        answer = api.nobody.post(PATH, json={**SUBMIT_PATCH, "commit_policy": "auto"}, headers=submitter)
        assert answer.status_code == 202
        assert answer.json()["commit_policy"] is None

    def test_a_time_after_the_deadline_is_no_time(self, api: Api):
        body = {**SUBMIT_PATCH, "deadline_seconds": 3600, "not_before": "2026-03-01T13:00:00Z"}
        refused = problem(api.acme.post(PATH, json=body), 422, "invalid_request")
        assert refused["errors"][0]["pointer"] == "#/not_before"
        assert api.acme.get(PATH).json()["items"] == []
