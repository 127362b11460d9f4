import json
from typing import Any

import httpx
import pytest

from service.api.examples import SUBMIT_PATCH, SUBMIT_PREPARED
from service.domain.snapshots import Intake
from service.store import snapshots
from service.store.database import Database
from service.store.tables import ChangeRequest
from tests.support import rows
from tests.support.served_api import Api

PATH = "/v1/change-requests"
PREPARED = SUBMIT_PREPARED["prepared"]
UUID = "3f2b8c14-5a6d-4e7f-8a9b-0c1d2e3f4a5b"


def submit(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(PATH, json=body)
    assert answer.status_code == 202, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def test_a_patch_is_stored_and_shown(api: Api, database: Database):
    answer = api.acme.post(PATH, json=SUBMIT_PATCH)
    assert answer.status_code == 202
    shown = answer.json()
    assert answer.headers["location"] == f"https://countersign.example{PATH}/{shown['id']}" == shown["links"]["self"]
    assert (shown["object"], shown["workspace"], shown["state"]) == ("change_request", "acme", "received")
    assert (shown["intake"], shown["title"], shown["cvm"]["id"]) == ("patch", "Release 1.4.2", "my-agent")
    assert shown["patch"] == ["allowed_envs", "docker_compose_file"]
    assert shown["approval"] is shown["execution"] is shown["commit"] is shown["reason"] is None
    assert shown["next"]["attempts"] == 0
    assert api.acme.get(f"{PATH}/{shown['id']}").json() == shown
    row = rows.read(database, ChangeRequest, shown["id"])
    assert row.patch == SUBMIT_PATCH["patch"]
    assert rows.is_due(database, ChangeRequest, shown["id"])
    assert [event.type for event in rows.events(database, shown["id"])] == ["change_request.received"]


def test_a_prepared_update_is_stored_and_its_token_never_shown(api: Api, database: Database):
    shown = submit(api.acme, SUBMIT_PREPARED)
    assert (shown["intake"], shown["cvm"]["id"], shown["patch"]) == ("prepared", UUID, None)
    assert (shown["chain"], shown["compose_hash"]) == ({"id": 8453, "name": "base"}, PREPARED["compose_hash"])
    assert shown["app_contract"] == "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    assert shown["device_id"] == "0x" + PREPARED["device_id"]
    with database.transaction() as session:
        kept = snapshots.change_request(database, session, shown["id"])
    assert kept.intake is Intake.PREPARED
    assert kept.commit_token is not None
    assert kept.commit_token.get_secret_value() == PREPARED["commit_token"]
    events = api.acme.get(f"{PATH}/{shown['id']}/events").text
    assert PREPARED["commit_token"] not in json.dumps(shown) + events


@pytest.mark.parametrize("told", [{}, {"chain_id": None, "kms_info": None}])
def test_the_short_name_before_the_app_may_tell_the_chain(api: Api, told: dict[str, None]):
    address = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    shown = submit(api.acme, {"prepared": {**PREPARED, **told, "app_id": f"base:{address}"}})
    assert (shown["chain"], shown["app_contract"]) == ({"id": 8453, "name": "base"}, address)
    assert shown["app_contract_eip3770"] == f"base:{address}"
    assert shown["app_contract_explorer_url"] == f"https://basescan.org/address/{address}"


def test_a_well_known_chain_before_the_app_that_is_not_configured(api: Api):
    body = {**PREPARED, "chain_id": None, "kms_info": None, "app_id": f"gno:0x{PREPARED['app_id']}"}
    answer = api.acme.post(PATH, json={"prepared": body})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/chain_not_configured")


def test_a_prepared_update_may_bring_its_patch(api: Api, database: Database):
    shown = submit(api.acme, {**SUBMIT_PREPARED, "patch": SUBMIT_PATCH["patch"]})
    assert shown["intake"] == "prepared"
    assert rows.read(database, ChangeRequest, shown["id"]).patch == SUBMIT_PATCH["patch"]


def test_a_cvm_id_beside_a_prepared_update_counts(api: Api):
    assert submit(api.acme, {**SUBMIT_PREPARED, "cvm_id": "my-agent"})["cvm"]["id"] == "my-agent"


def test_contents_of_a_patch_are_never_shown(api: Api):
    body = {"cvm_id": "a", "patch": {"encrypted_env": "5ec7e75ec7e7", "user_config": "my-config"}}
    shown = submit(api.acme, body)
    events = api.acme.get(f"{PATH}/{shown['id']}/events").text
    for text in (json.dumps(shown), events, api.acme.get(PATH).text):
        assert "5ec7e7" not in text
        assert "my-config" not in text


def test_members_on_which_the_sources_disagree_pass_with_a_warning(api: Api, database: Database):
    gpus = {"gpus": [{"slot": "1a:00.0", "product_id": None}], "attach_mode": "all"}
    shown = submit(api.acme, {"cvm_id": "a", "patch": {"disk_size": 40, "gpus": gpus}})
    assert len(shown["warnings"]) == 2
    assert rows.read(database, ChangeRequest, shown["id"]).patch == {"disk_size": 40, "gpus": gpus}


def test_the_deadline_is_the_requests_or_the_workspaces(api: Api):
    short = submit(api.acme, {**SUBMIT_PATCH, "deadline_seconds": 3600})
    assert (short["created_at"], short["deadline_at"]) == ("2026-03-01T12:00:00Z", "2026-03-01T13:00:00Z")
    default = submit(api.acme, {**SUBMIT_PATCH, "cvm_id": "another"})
    assert default["deadline_at"] == "2026-03-31T12:00:00Z"


def test_to_go_without_approval_must_be_permitted(api: Api, database: Database):
    body = {**SUBMIT_PATCH, "allow_without_approval": True}
    answer = api.acme.post(PATH, json=body)
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/not_permitted")
    rows.workspace(database, "acme", allow_without_approval=True)
    assert submit(api.acme, body)["allow_without_approval"] is True


def test_a_token_is_taken_once(api: Api):
    first = submit(api.acme, SUBMIT_PREPARED)
    again = api.acme.post(PATH, json=SUBMIT_PREPARED)
    assert (again.status_code, again.json()["type"]) == (409, "/problems/token_already_submitted")
    assert first["id"] in again.json()["detail"]
    elsewhere = api.other.post(PATH, json=SUBMIT_PREPARED)
    assert elsewhere.status_code == 409
    assert first["id"] not in elsewhere.text
    for answer in (again, elsewhere):
        assert PREPARED["commit_token"] not in answer.text
    assert api.other.get(PATH).json()["items"] == []


@pytest.mark.parametrize(
    ("changes", "cvm_id", "pointer"),
    [
        ({"chain_id": 10}, None, "#/prepared/chain_id"),
        ({"chain_id": 8453, "kms_info": {"chain_id": rows.CHAIN_ID}}, None, "#/prepared/chain_id"),
        ({"chain_id": None, "kms_info": None}, None, "#/prepared/chain_id"),
        ({"api_commit_url": None}, None, "#/cvm_id"),
        ({"api_commit_url": "https://cloud.example/cvms/not-a-uuid/commit-update"}, None, "#/cvm_id"),
        ({}, "00000000-0000-4000-8000-000000000000", "#/cvm_id"),
    ],
)
def test_a_prepared_update_must_fit_together(idle_api: Api, changes: dict[str, Any], cvm_id: str | None, pointer: str):
    answer = idle_api.acme.post(PATH, json={"cvm_id": cvm_id, "prepared": {**PREPARED, **changes}})
    assert answer.status_code == 422
    assert [part["pointer"] for part in answer.json()["errors"]] == [pointer]
    assert idle_api.acme.get(PATH).json()["items"] == []


def test_the_chain_may_be_told_by_the_key_management_alone(api: Api):
    prepared = {**PREPARED, "chain_id": None}
    assert submit(api.acme, {"prepared": prepared})["chain"]["id"] == 8453


def test_the_same_cvm_in_another_form_of_its_uuid_fits(api: Api):
    body = {**SUBMIT_PREPARED, "cvm_id": UUID.replace("-", "").upper()}
    assert submit(api.acme, body)["cvm"]["id"] == body["cvm_id"]


@pytest.mark.parametrize("body", [{}, {"cvm_id": "a"}, {"patch": {"vcpu": 1}}, {"cvm_id": "a", "patch": None}])
def test_there_must_be_something_to_change_somewhere(idle_api: Api, body: dict[str, Any]):
    assert idle_api.acme.post(PATH, json=body).status_code == 422
    assert idle_api.acme.get(PATH).json()["items"] == []
