"""Asking for a fresh token, and handing one in."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from service.domain.states import TERMINAL, State
from service.store.database import Database
from service.store.tables import ChangeRequest
from tests.support import heard, rows
from tests.support.served_api import Api

TOKEN = "7d3e9f52-0b1c-4a8d-9e6f-5a4b3c2d1e0f"
PREPARED = {
    "compose_hash": rows.COMPOSE_HASH,
    "app_id": rows.APP,
    "device_id": rows.DEVICE,
    "chain_id": rows.CHAIN_ID,
    "commit_token": TOKEN,
}


def refresh(client: httpx.Client, request_id: str, body: dict[str, Any] | None = None) -> httpx.Response:
    path = f"/v1/change-requests/{request_id}/refresh"
    return client.post(path) if body is None else client.post(path, json=body)


def assert_problem(answer: httpx.Response, status: int, slug: str) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
    assert TOKEN not in answer.text


@pytest.fixture
def acme(workspaces: dict[str, str]) -> str:
    return workspaces["acme"]


@pytest.mark.parametrize("body", [None, {}, {"prepared": None}])
def test_a_wish_is_stored_and_shown(api: Api, database: Database, acme: str, body: dict[str, Any] | None):
    request_id = rows.change_request(database, acme, State.PROPOSED, refresh_attempts=3, refresh_due_at=rows.NOW)
    rows.shift(database, ChangeRequest, request_id, due_at=3600)
    answer = refresh(api.acme, request_id, body)
    assert answer.status_code == 202, answer.text
    expected = {"by_service": True, "requested_at": "2026-03-01T12:00:00Z", "attempts": 3, "next_attempt_at": None}
    assert answer.json()["token_refresh"] == {**expected, "reason": None}
    assert rows.is_due(database, ChangeRequest, request_id)


def test_without_a_patch_somebody_else_has_to_prepare(api: Api, database: Database, acme: str):
    request_id = rows.change_request(database, acme, State.PROPOSED, intake="prepared", patch=None)
    answer = refresh(api.acme, request_id)
    assert_problem(answer, 422, "invalid_request")
    assert answer.json()["errors"][0]["pointer"] == "#/prepared"


@pytest.mark.parametrize("state", [State.PREPARED, State.PROPOSED, State.EXECUTED, State.REGISTERED])
def test_a_token_of_the_same_update_is_taken(api: Api, database: Database, acme: str, state: State):
    request_id = rows.change_request(database, acme, state, intake="prepared", patch=None, token_told=21600)
    answer = refresh(api.acme, request_id, {"prepared": PREPARED})
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == state
    assert answer.json()["token_expires_at"] == "2026-03-15T12:00:00Z"
    row = rows.read(database, ChangeRequest, request_id)
    opened = database.sealer.open(row.commit_token_sealed, purpose="commit_token", row_id=request_id)
    assert (opened.get_secret_value(), row.token_told) == (TOKEN, None)
    assert [event.type for event in rows.events(database, request_id)] == ["change_request.token_refreshed"]
    assert TOKEN not in answer.text + rows.events(database, request_id)[0].body


def test_phala_cloud_knows_better_when_it_ends(api: Api, database: Database, acme: str):
    request_id = rows.change_request(database, acme, State.PROPOSED, vm_uuid=heard.VM_UUID)
    heard.hear(database, acme, token=TOKEN, minted_at=rows.NOW - timedelta(days=1))
    answer = refresh(api.acme, request_id, {"prepared": PREPARED})
    assert answer.json()["token_expires_at"] == "2026-03-14T12:00:00Z"


@pytest.mark.parametrize(
    ("changes", "member"),
    [
        ({"compose_hash": rows.OTHER_HASH}, "compose_hash"),
        ({"app_id": rows.OTHER_APP}, "app_id"),
        ({"device_id": rows.OTHER_DEVICE}, "device_id"),
        ({"chain_id": 8453}, "chain_id"),
        ({"api_commit_url": f"https://cloud.example/cvms/{heard.VM_UUID}/commit-update?token=x"}, "api_commit_url"),
    ],
)
def test_another_update_is_refused(api: Api, database: Database, acme: str, changes: dict[str, Any], member: str):
    request_id = rows.change_request(database, acme, State.PROPOSED)
    before = rows.read(database, ChangeRequest, request_id).commit_token_fingerprint
    answer = refresh(api.acme, request_id, {"prepared": {**PREPARED, **changes}})
    assert_problem(answer, 409, "prepared_differs")
    assert answer.json()["errors"][0]["pointer"] == f"#/prepared/{member}"
    assert rows.read(database, ChangeRequest, request_id).commit_token_fingerprint == before


def test_a_token_is_taken_once(api: Api, database: Database, acme: str, workspaces: dict[str, str]):
    first, second = (rows.change_request(database, acme, State.PROPOSED) for _ in "12")
    elsewhere = rows.change_request(database, workspaces["other"], State.PROPOSED)
    assert refresh(api.acme, first, {"prepared": PREPARED}).status_code == 202
    for request_id in (first, second):
        answer = refresh(api.acme, request_id, {"prepared": PREPARED})
        assert_problem(answer, 409, "token_already_submitted")
        assert first in answer.json()["detail"]
    answer = refresh(api.other, elsewhere, {"prepared": PREPARED})
    assert_problem(answer, 409, "token_already_submitted")
    assert first not in answer.text


def test_a_former_token_is_known_for_ever(api: Api, database: Database, acme: str):
    request_id = rows.change_request(database, acme, State.PROPOSED)
    newer = "00000000-0000-4000-8000-000000000002"
    for token in (TOKEN, newer):
        assert refresh(api.acme, request_id, {"prepared": {**PREPARED, "commit_token": token}}).status_code == 202
    again = api.acme.post("/v1/change-requests", json={"cvm_id": "my-agent", "prepared": PREPARED})
    assert_problem(again, 409, "token_already_submitted")
    assert request_id in again.json()["detail"]


@pytest.mark.parametrize("body", [None, {"prepared": PREPARED}])
def test_when_it_is_too_early_or_too_late(api: Api, database: Database, acme: str, body: dict[str, Any] | None):
    cases = [
        (rows.change_request(database, acme), "nothing_prepared"),
        (rows.change_request(database, acme, State.REGISTERED, commit_attempted_at=rows.NOW), "commit_started"),
        (rows.change_request(database, acme, State.COMMITTED), "commit_started"),
        *((rows.change_request(database, acme, state), "already_ended") for state in TERMINAL),
    ]
    for request_id, slug in cases:
        assert_problem(refresh(api.acme, request_id, body), 409, slug)


def test_of_another_workspace_nothing_is_known(api: Api, database: Database, acme: str):
    request_id = rows.change_request(database, acme, State.PROPOSED)
    assert_problem(refresh(api.other, request_id), 404, "not_found")
    assert_problem(refresh(api.nobody, request_id), 401, "unauthorized")


@pytest.mark.parametrize(
    ("headers", "status"), [({"content-type": "text/plain"}, 415), ({"content-type": "application/json"}, 400)]
)
def test_a_body_that_is_sent_must_be_json(
    api: Api, database: Database, acme: str, headers: dict[str, str], status: int
):
    request_id = rows.change_request(database, acme, State.PROPOSED)
    path = f"/v1/change-requests/{request_id}/refresh"
    assert api.acme.post(path, content=b"{", headers=headers).status_code == status
