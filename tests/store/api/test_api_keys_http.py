"""API keys over the API: made, shown once, listed, rotated, revoked; never above the caller's own scope."""

from datetime import datetime, timedelta

import httpx
import pytest

from service.domain.api_keys import Scope, mint
from service.store.database import Database
from tests.support import rows
from tests.support.routes import problem
from tests.support.served_api import Api
from tests.support.threads import wait_until

PATH = "/v1/api-keys"
READ = "/v1/change-requests"
CI = {"name": "CI of my-agent", "scope": "submit"}


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _works(api: Api, key: str) -> bool:
    return api.nobody.get(READ, headers=_bearer(key)).status_code == 200


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_key_is_shown_once_and_works_at_once(api: Api):
    made = api.acme.post(PATH, json={**CI, "expires_in_seconds": 3600})
    assert made.status_code == 201
    body = made.json()
    assert body["key"].startswith(body["hint"])
    assert _time(body["expires_at"]) - _time(body["created_at"]) == timedelta(hours=1)
    assert body["created_by"].startswith("key_")
    assert _works(api, body["key"])
    for answer in (api.acme.get(PATH), api.acme.get(f"{PATH}/{body['id']}")):
        assert answer.status_code == 200
        assert body["id"] in answer.text
        assert body["key"] not in answer.text
    assert body["id"] not in api.other.get(PATH).text


def test_a_revoked_key_stops_at_once_and_can_still_be_read_about(api: Api):
    made = api.acme.post(PATH, json=CI).json()
    ended = api.acme.delete(f"{PATH}/{made['id']}")
    assert (ended.status_code, ended.json()["works"]) == (200, False)
    problem(api.nobody.get(READ, headers=_bearer(made["key"])), 401, "unauthorized")
    again = api.acme.delete(f"{PATH}/{made['id']}").json()
    assert again == ended.json() == api.acme.get(f"{PATH}/{made['id']}").json()
    assert made["id"] not in api.acme.get(PATH).text
    problem(api.acme.post(f"{PATH}/{made['id']}/rotate", json={}), 409, "api_key_ended")


def test_rotation_has_no_gap(api: Api):
    old = api.acme.post(PATH, json=CI).json()
    new = api.acme.post(f"{PATH}/{old['id']}/rotate", json={"overlap_seconds": 60}).json()
    assert (new["replaces"], new["scope"], new["name"]) == (old["id"], "submit", CI["name"])
    assert _works(api, old["key"])
    assert _works(api, new["key"])
    ends = _time(api.acme.get(f"{PATH}/{old['id']}").json()["expires_at"])
    assert ends - _time(new["created_at"]) == timedelta(minutes=1)
    newest = api.acme.post(f"{PATH}/{new['id']}/rotate", json={"overlap_seconds": 0}).json()
    assert not _works(api, new["key"])
    assert _works(api, newest["key"])


@pytest.fixture
def manager(api: Api, database: Database, workspaces: dict[str, str]) -> httpx.Headers:
    """Headers of a key that manages, and is no administrator."""
    assert api
    key = mint(b"manager".ljust(32))
    rows.api_key(database, workspaces["acme"], key, Scope.MANAGE)
    return httpx.Headers(_bearer(key))


def test_nobody_makes_rotates_or_revokes_a_key_above_their_own(api: Api, manager: httpx.Headers):
    admin = api.acme.post(PATH, json={**CI, "scope": "admin"}).json()
    for answer in (
        api.nobody.post(PATH, json={**CI, "scope": "admin"}, headers=manager),
        api.nobody.post(f"{PATH}/{admin['id']}/rotate", json={}, headers=manager),
        api.nobody.delete(f"{PATH}/{admin['id']}", headers=manager),
    ):
        problem(answer, 403, "insufficient_scope")
    assert _works(api, admin["key"])
    assert len(api.acme.get(PATH).json()["items"]) == 3
    assert api.nobody.post(PATH, json={**CI, "scope": "manage"}, headers=manager).status_code == 201


def test_a_workspace_has_a_bound_of_keys(api: Api, database: Database, workspaces: dict[str, str]):
    for number in range(99):
        rows.api_key(database, workspaces["acme"], f"key {number}")
    problem(api.acme.post(PATH, json=CI), 409, "too_many_api_keys")
    assert api.other.post(PATH, json=CI).status_code == 201


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"scope": "root"}, "#/scope"),
        ({"scope": None}, "#/scope"),
        ({"name": "a\nb"}, "#/name"),
        ({"name": ""}, "#/name"),
        ({"expires_in_seconds": 59}, "#/expires_in_seconds"),
        ({"expires_in_seconds": 10**12}, "#/expires_in_seconds"),
        ({"expires_in_seconds": "60"}, "#/expires_in_seconds"),
    ],
)
def test_what_makes_no_sense_is_pointed_at(idle_api: Api, change: dict[str, object], pointer: str):
    (part,) = problem(idle_api.acme.post(PATH, json={**CI, **change}), 422, "invalid_request")["errors"]
    assert part["pointer"] == pointer


@pytest.mark.parametrize("key_id", ["x", "key_", "key_" + "g" * 32, "cr_" + "0" * 32, "%00", "a" * 5000])
def test_what_cannot_be_an_id_is_not_found(idle_api: Api, key_id: str):
    problem(idle_api.acme.get(f"{PATH}/{key_id}"), 404, "not_found")


def test_the_last_use_of_a_key_is_noted(api: Api):
    made = api.acme.post(PATH, json=CI).json()
    assert made["last_used_at"] is None
    assert _works(api, made["key"])
    wait_until(lambda: api.acme.get(f"{PATH}/{made['id']}").json()["last_used_at"] is not None, "its use is noted")


def test_a_key_that_comes_back_from_a_retry_is_the_same_key(api: Api):
    headers = {"Idempotency-Key": "make the key of CI"}
    made, retried = (api.acme.post(PATH, json=CI, headers=headers) for _ in range(2))
    assert made.json() == retried.json()
    assert _works(api, retried.json()["key"])
    assert len(api.acme.get(PATH).json()["items"]) == 2
