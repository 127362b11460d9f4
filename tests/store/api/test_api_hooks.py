"""Webhooks of Phala Cloud: who may send them, and what is taken from them."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from service.store.database import Database
from tests.support import heard, rows
from tests.support.heard import SECRET
from tests.support.served_api import Api

PATH = "/v1/hooks/phala/acme"
OLD_SECRET = "whsec_that-is-being-replaced-by-now"


@pytest.fixture
def hooked(api: Api, database: Database) -> Api:
    rows.workspace(database, "acme", phala_webhook_secrets=[SecretStr(OLD_SECRET), SecretStr(SECRET)])
    return api


def post(api: Api, webhook: tuple[bytes, dict[str, str]], path: str = PATH) -> httpx.Response:
    body, headers = webhook
    return api.nobody.post(path, content=body, headers=headers)


@pytest.mark.parametrize("secret", [SECRET, OLD_SECRET])
def test_a_prepare_elsewhere_becomes_a_change_request(hooked: Api, database: Database, secret: str):
    answer = post(hooked, heard.webhook(secret=secret))
    assert (answer.status_code, answer.content) == (204, b"")
    (shown,) = hooked.acme.get("/v1/change-requests").json()["items"]
    assert (shown["state"], shown["intake"], shown["cvm"]["id"]) == ("received", "webhook", heard.VM_UUID)
    assert (shown["app_contract"], shown["compose_hash"]) == (rows.APP, rows.COMPOSE_HASH)
    assert shown["token_refresh"]["by_service"] is False
    assert post(hooked, heard.webhook()).status_code == 204
    assert len(heard.requests_of(database)) == 1


def test_the_token_and_its_links_are_kept_nowhere_in_the_open(hooked: Api, database: Database):
    post(hooked, heard.webhook())
    with database.transaction() as session:
        for table in ("inbound_events", "change_requests", "events", "commit_tokens"):
            for (row,) in session.execute(text(f"SELECT row_to_json(t)::text FROM {table} t")):  # noqa: S608 - names
                assert "7d3e9f52" not in row
                assert "confirm-update" not in row


def test_a_token_that_was_submitted_is_an_echo(hooked: Api, database: Database):
    prepared = {
        "compose_hash": rows.COMPOSE_HASH,
        "app_id": rows.APP,
        "device_id": rows.DEVICE,
        "chain_id": rows.CHAIN_ID,
        "commit_token": "7d3e9f52-0b1c-4a8d-9e6f-5a4b3c2d1e0f",
    }
    body = {"cvm_id": "my-agent", "prepared": prepared}
    assert hooked.acme.post("/v1/change-requests", json=body).status_code == 202
    assert post(hooked, heard.webhook()).status_code == 204
    assert heard.verdicts(database) == {"evt_0123456789abcdef": "echo"}
    assert heard.requests_of(database) == []


def test_a_prepare_that_came_by_webhook_cannot_be_submitted_again(hooked: Api):
    post(hooked, heard.webhook())
    (shown,) = hooked.acme.get("/v1/change-requests").json()["items"]
    prepared = {
        "compose_hash": rows.COMPOSE_HASH,
        "app_id": rows.APP,
        "device_id": rows.DEVICE,
        "chain_id": rows.CHAIN_ID,
        "commit_token": "7d3e9f52-0b1c-4a8d-9e6f-5a4b3c2d1e0f",
    }
    answer = hooked.acme.post("/v1/change-requests", json={"cvm_id": heard.VM_UUID, "prepared": prepared})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/token_already_submitted")
    assert shown["id"] in answer.json()["detail"]


@pytest.mark.parametrize("event", ["cvm.updated", "cvm.replica.pending_approval", "cvm.something.new"])
def test_other_events_are_acknowledged(hooked: Api, database: Database, event: str):
    assert post(hooked, heard.webhook(event=event)).status_code == 204
    assert heard.verdicts(database) == {}


REFUSED: list[tuple[str, dict[str, Any]]] = [
    (PATH, {"secret": "whsec_of-somebody-else-entirely"}),
    (PATH, {"at": rows.NOW - timedelta(seconds=301)}),
    ("/v1/hooks/phala/other", {}),  # has no secrets
    ("/v1/hooks/phala/nobody", {}),  # does not exist
]


@pytest.mark.fault("webhooks in", "Somebody forges a webhook", "401, nothing is stored or told", "at once")
@pytest.mark.parametrize(("path", "fields"), REFUSED)
def test_what_is_not_signed_for_this_workspace_learns_nothing(
    hooked: Api, database: Database, path: str, fields: dict[str, Any]
):
    answer = post(hooked, heard.webhook(**fields), path)
    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/signature_refused")
    assert answer.json()["detail"] == post(hooked, (b"{}", {}), PATH).json()["detail"]
    assert heard.verdicts(database) == {}


@pytest.mark.parametrize(
    "data",
    [
        {"cvm_id": "not-a-uuid"},
        {"compose_hash": rows.COMPOSE_HASH[:-1]},
        {"device_id": "0x"},
        {"app_id": rows.OTHER_APP},
        {"kms": {"chain_id": 2**70}},
        {"kms": {}},
        {"commit_token": ""},
        {"expires_at": (rows.NOW + timedelta(days=16)).isoformat()},
        {"expires_at": "0001-01-01T00:00:00Z"},
    ],
)
def test_a_signed_body_that_makes_no_sense_is_refused(hooked: Api, database: Database, data: dict[str, Any]):
    answer = post(hooked, heard.webhook(**data))
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid_request")
    assert "7d3e9f52" not in answer.text
    assert heard.verdicts(database) == {}
