"""A workspace over its own API: what is set, who may do what, what blocks it."""

import json
from typing import Any

import httpx
import pytest

from service.api.examples import SUBMIT_PATCH
from service.domain.api_keys import Scope, mint
from service.domain.reasons import Reason
from service.domain.states import State
from service.store import retention, standing
from service.store import workspaces as store
from service.store.database import Database
from service.store.tables import ChangeRequest, Workspace
from tests.support import rows
from tests.support.old_events import age, told
from tests.support.routes import CONTRACT, problem
from tests.support.served_api import KEYS, Api

PATH = "/v1/workspace"
REQUESTS = "/v1/change-requests"
SECRET = "phak_0123456789abcdef"
HOOK_SECRETS = ["whsec_of-the-old-webhook-0123", "whsec_of-the-new-webhook-0123"]


def _key(database: Database, workspace_id: str, scope: Scope, **columns: Any) -> dict[str, str]:
    """Headers of a key; its id is under ``id``."""
    key = mint(f"{scope} {columns}".encode().ljust(32)[:32])
    key_id = rows.api_key(database, workspace_id, key, scope, **columns)
    return {"Authorization": f"Bearer {key}", "id": key_id}


def test_secrets_go_in_and_never_come_out(api: Api, database: Database, workspaces: dict[str, str]):
    before = api.acme.get(PATH).json()
    assert before["phala"]["webhook_secrets_set_at"] is None

    answer = api.acme.patch(PATH, json={"phala_api_key": SECRET, "phala_webhook_secrets": HOOK_SECRETS})

    shown = answer.json()
    assert (answer.status_code, shown["id"], shown["slug"]) == (200, workspaces["acme"], "acme")
    assert shown["phala"]["api_key_set_at"] > before["phala"]["api_key_set_at"]
    assert shown["phala"]["webhook_secrets"] == 2
    assert shown["phala"]["webhook_secrets_set_at"] is not None
    for secret in (SECRET, *HOOK_SECRETS):
        assert secret not in answer.text + api.acme.get(PATH).text
    assert _stored(database, workspaces["acme"]) == (SECRET, HOOK_SECRETS)
    assert _stored(database, workspaces["other"]) == ("phala-key-of-other", [])


def _stored(database: Database, workspace_id: str) -> tuple[str, list[str]]:
    slug = rows.read(database, Workspace, workspace_id).slug
    known = store.phala_webhook_secrets(database, slug)
    assert known is not None
    key = store.phala_account(database, workspace_id).api_key
    return key.get_secret_value(), [secret.get_secret_value() for secret in known[1]]


def test_members_that_are_left_out_stay(api: Api):
    first = {
        "name": "Acme",
        "policy": {"submit": "manage", "allow_without_approval": True},
        "deadlines": {"request_seconds": 3600, "run_seconds": 120},
        "retention": {"events_days": None, "deliveries_days": 7},
    }
    api.acme.patch(PATH, json=first)
    shown = api.acme.patch(PATH, json={"policy": {"cancel_own_only": True}, "retention": {"events_days": 30}}).json()
    assert shown["name"] == "Acme"
    assert shown["policy"] == {
        "submit": "manage",
        "cancel": "submit",
        "release": "manage",
        "cancel_own_only": True,
        "allow_without_approval": True,
    }
    assert shown["deadlines"] == first["deadlines"]
    assert shown["retention"] == {"events_days": 30, "deliveries_days": 7}
    assert api.acme.patch(PATH, json={"name": None}).json()["name"] is None
    assert api.acme.patch(PATH, json={}).json() == api.acme.get(PATH).json()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"phala_api_key": None}, "#"),
        ({"phala_api_key": "short"}, "#/phala_api_key"),
        ({"phala_api_key": "phak_with a blank"}, "#/phala_api_key"),
        ({"phala_webhook_secrets": [SECRET]}, "#/phala_webhook_secrets/0"),
        ({"phala_webhook_secrets": HOOK_SECRETS * 6}, "#/phala_webhook_secrets"),
        ({"policy": {"submit": "read"}}, "#/policy/submit"),
        ({"policy": {"submit": "root"}}, "#/policy/submit"),
        ({"policy": {"cancel_own_only": None}}, "#/policy"),
        ({"policy": {"cancel_own_only": 1}}, "#/policy/cancel_own_only"),
        ({"deadlines": {"request_seconds": 59}}, "#/deadlines/request_seconds"),
        ({"deadlines": {"run_seconds": 86401}}, "#/deadlines/run_seconds"),
        ({"retention": {"events_days": 6}}, "#/retention/events_days"),
        ({"retention": {"deliveries_days": 3651}}, "#/retention/deliveries_days"),
        ({"name": "a\nb"}, "#/name"),
        ({"phala_base_url": "https://elsewhere.example"}, "#/phala_base_url"),
        ({"slug": "other"}, "#/slug"),
    ],
    ids=json.dumps,
)
def test_what_makes_no_sense_is_pointed_at_and_not_repeated(idle_api: Api, body: dict[str, Any], pointer: str):
    answer = idle_api.acme.patch(PATH, json=body)
    (part,) = problem(answer, 422, "invalid_request")["errors"]
    assert part["pointer"] == pointer
    assert "phak_" not in answer.text
    assert "whsec_" not in answer.text


def test_safes_and_apps_are_registered_by_name_or_number_of_their_chain(api: Api):
    by_name = api.acme.post(f"{PATH}/safes", json={"address": f"base:{CONTRACT}"})
    assert by_name.status_code == 201
    again = api.acme.post(f"{PATH}/safes", json={"chain_id": 8453, "address": CONTRACT.lower()})
    assert (again.status_code, again.json()) == (201, by_name.json())
    assert by_name.json()["eip3770"] == f"base:{CONTRACT}"
    listed = api.acme.get(f"{PATH}/safes").json()["items"]
    assert [one["id"] for one in listed] == [f"8453:{CONTRACT}", f"{rows.CHAIN_ID}:{rows.SAFE}"]
    assert api.acme.get(f"{PATH}/external-apps").json()["items"] == []
    assert api.acme.delete(f"{PATH}/external-apps/base:{CONTRACT}").status_code == 404
    assert api.acme.delete(f"{PATH}/safes/base:{CONTRACT.lower()}").json() == by_name.json()
    assert api.acme.delete(f"{PATH}/safes/8453:{CONTRACT}").status_code == 404


@pytest.mark.parametrize(
    ("body", "pointer", "slug"),
    [
        ({"address": CONTRACT}, "#/chain_id", "invalid_request"),
        ({"address": f"base:{CONTRACT}", "chain_id": 1}, "#/chain_id", "invalid_request"),
        ({"address": f"nowhere:{CONTRACT}"}, "#/address", "invalid_request"),
        ({"address": f"base:{CONTRACT[:-1]}A"}, "#/address", "invalid_request"),
        ({"address": f"eth:{CONTRACT}"}, "#/chain_id", "chain_not_configured"),
        ({"address": f"1:{CONTRACT}"}, "#/chain_id", "chain_not_configured"),
    ],
)
def test_a_contract_that_is_none_is_pointed_at(idle_api: Api, body: dict[str, Any], pointer: str, slug: str):
    (part,) = problem(idle_api.acme.post(f"{PATH}/safes", json=body), 422, slug)["errors"]
    assert part["pointer"] == pointer


@pytest.mark.parametrize("contract", ["x", CONTRACT, f"nowhere:{CONTRACT}", "base:0x", f"base:{CONTRACT}%00"])
def test_what_names_no_contract_is_not_found(idle_api: Api, contract: str):
    problem(idle_api.acme.delete(f"{PATH}/safes/{contract}"), 404, "not_found")


def test_there_is_an_end_to_registering(api: Api):
    for number in range(99):
        assert api.acme.post(f"{PATH}/safes", json={"address": f"base:0x{number:040x}"}).status_code == 201
    problem(api.acme.post(f"{PATH}/safes", json={"address": f"base:{CONTRACT}"}), 409, "too_many_registered")
    assert api.acme.post(f"{PATH}/external-apps", json={"address": f"base:{CONTRACT}"}).status_code == 201


def test_the_policy_says_which_key_may_submit_and_cancel(api: Api, database: Database, workspaces: dict[str, str]):
    small, large = (_key(database, workspaces["acme"], scope) for scope in (Scope.SUBMIT, Scope.MANAGE))
    api.acme.patch(PATH, json={"policy": {"submit": "manage"}})
    refused = api.nobody.post(REQUESTS, json=SUBMIT_PATCH, headers=small)
    assert "scope manage" in problem(refused, 403, "insufficient_scope")["detail"]
    made = api.nobody.post(REQUESTS, json=SUBMIT_PATCH, headers=large).json()
    assert api.nobody.post(f"{REQUESTS}/{made['id']}/refresh", headers=small).status_code == 403
    api.acme.patch(PATH, json={"policy": {"cancel": "admin"}})
    for headers in (small, large):
        problem(api.nobody.post(f"{REQUESTS}/{made['id']}/cancel", headers=headers), 403, "insufficient_scope")
    assert api.acme.post(f"{REQUESTS}/{made['id']}/cancel").status_code == 202


def test_a_key_may_be_held_to_cancel_its_own(api: Api, database: Database, workspaces: dict[str, str]):
    acme = workspaces["acme"]
    old, stranger, manager = (
        _key(database, acme, scope, name=name)
        for scope, name in ((Scope.SUBMIT, "ci"), (Scope.SUBMIT, "other ci"), (Scope.MANAGE, "people"))
    )
    middle = _key(database, acme, Scope.SUBMIT, replaces=old["id"])
    new = _key(database, acme, Scope.SUBMIT, name="newest", replaces=middle["id"])
    api.acme.patch(PATH, json={"policy": {"cancel_own_only": True}})
    patches = [{**SUBMIT_PATCH, "cvm_id": f"agent-{number}"} for number in range(3)]
    made = [api.nobody.post(REQUESTS, json=patch, headers=old).json()["id"] for patch in patches]
    heard = rows.change_request(database, acme)

    def cancel(request_id: str, headers: dict[str, str]) -> httpx.Response:
        return api.nobody.post(f"{REQUESTS}/{request_id}/cancel", headers=headers)

    for request_id in (made[0], heard):
        problem(cancel(request_id, stranger), 403, "not_permitted")
    assert cancel(made[0], old).status_code == 202
    assert cancel(made[1], new).status_code == 202, "it replaces the key that submitted it"
    assert cancel(made[2], manager).status_code == 202
    problem(cancel(heard, new), 403, "not_permitted")
    assert cancel(heard, manager).status_code == 202


def test_who_retries_a_change_request_submitted_the_new_one(api: Api, database: Database, workspaces: dict[str, str]):
    acme = workspaces["acme"]
    key = _key(database, acme, Scope.SUBMIT, name="ci")
    api.acme.patch(PATH, json={"policy": {"cancel_own_only": True}})
    ended = rows.change_request(database, acme, State.CANCELLED)

    made = api.nobody.post(f"{REQUESTS}/{ended}/retry", headers=key).json()

    assert made["retry_of"] == ended
    assert api.nobody.post(f"{REQUESTS}/{made['id']}/cancel", headers=key).status_code == 202


def test_a_blocked_workspace_says_why_and_what_to_do(api: Api, database: Database, workspaces: dict[str, str]):
    acme = workspaces["acme"]
    assert api.acme.get(PATH).json()["blocked"] is False
    standing.note(database, acme, "phala:key", Reason.PHALA_UNAUTHORIZED, "Phala Cloud: Invalid API key")
    waiting = rows.change_request(database, acme, reason=Reason.PHALA_UNAUTHORIZED)
    rows.shift(database, ChangeRequest, waiting, due_at=3600)
    standing.block(database, acme, "the invoice is unpaid", rows.ACTOR)

    shown = api.acme.get(PATH).json()
    assert shown["blocked"] is True
    assert [(one["code"], one["subject"], one["detail"]) for one in shown["blocks"]] == [
        ("workspace_blocked", None, "the invoice is unpaid"),
        ("phala_unauthorized", "phala:key", "Phala Cloud: Invalid API key"),
    ]
    assert all(one["advice"] and one["since"] for one in shown["blocks"])
    assert api.other.get(PATH).json()["blocks"] == []
    ready = api.nobody.get("/readyz")
    assert ready.json()["parts"]["workspaces"].startswith(
        "degraded: blocked by phala_unauthorized: 1, workspace_blocked: 1"
    )
    assert (ready.status_code, "acme" in ready.text) == (200, False)

    refused = problem(api.acme.post(REQUESTS, json=SUBMIT_PATCH), 403, "workspace_blocked")
    assert "the invoice is unpaid" in refused["detail"]
    assert api.other.post(REQUESTS, json=SUBMIT_PATCH).status_code == 202
    assert api.acme.post(f"{REQUESTS}/{waiting}/cancel").status_code == 202

    standing.unblock(database, acme, rows.ACTOR)
    assert [one["code"] for one in api.acme.get(PATH).json()["blocks"]] == ["phala_unauthorized"]
    assert api.acme.patch(PATH, json={"phala_api_key": SECRET}).json()["blocks"] == []


def test_what_waits_for_a_repair_is_looked_at_again_when_asked(
    api: Api, database: Database, workspaces: dict[str, str]
):
    ours, theirs = (
        rows.change_request(database, workspaces[slug], reason=Reason.PROPOSER_NOT_DELEGATE) for slug in KEYS
    )
    for request_id in (ours, theirs):
        rows.shift(database, ChangeRequest, request_id, due_at=3600)
    assert api.acme.post(f"{PATH}/recheck").status_code == 202
    assert (rows.due_in(database, ChangeRequest, ours) or 0) <= 0
    assert (rows.due_in(database, ChangeRequest, theirs) or 0) > 3000


def test_a_cursor_from_before_what_is_kept_is_gone(api: Api, database: Database, workspaces: dict[str, str]):
    acme = workspaces["acme"]
    request_id = told(database, acme, State.CANCELLED)
    late = api.acme.get("/v1/events", params={"limit": 1}).json()["next_cursor"]
    read_on = api.acme.get("/v1/events", params={"cursor": late}).json()["next_cursor"]
    age(database, 400)
    assert retention.forget(database) == 3

    gone = problem(api.acme.get("/v1/events", params={"cursor": late}), 410, "cursor_expired")
    assert "without a cursor" in gone["detail"]
    assert api.acme.get("/v1/events", params={"cursor": read_on}).json()["items"] == []
    assert api.acme.get("/v1/events").json()["items"] == []
    own = api.acme.get(f"{REQUESTS}/{request_id}/events").json()
    assert (own["items"], own["deleted_at"] is not None) == ([], True)
    assert api.acme.get(f"{REQUESTS}/{request_id}").json()["state"] == "cancelled"


def test_a_filter_that_lets_nothing_through_moves_the_cursor_on(
    api: Api, database: Database, workspaces: dict[str, str]
):
    told(database, workspaces["acme"], State.CANCELLED)
    only = {"types": "webhook_endpoint.*"}
    cursor = api.acme.get("/v1/events", params=only).json()["next_cursor"]
    age(database, 400)
    retention.forget(database)
    assert api.acme.get("/v1/events", params={**only, "cursor": cursor}).status_code == 200
