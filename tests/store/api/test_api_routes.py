"""What holds for every route that needs a key: no key, small scope, others' objects, oversized and malformed bodies."""

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from service.api.middleware import MAX_BODY_BYTES
from service.domain.api_keys import Scope, mint
from service.domain.states import State
from service.store.database import Database
from tests.support import rows
from tests.support.routes import CONTRACT, HOOKS, ROUTES, Route, problem
from tests.support.served_api import KEYS, Api

JSON = {"Content-Type": "application/json"}
SCOPED = {scope: mint(scope.value.encode().ljust(32)) for scope in Scope}
OPEN = {"/healthz", "/readyz", "/problems/{slug}", "/docs", "/docs/oauth2-redirect", "/openapi.json"}

NO_LISTS = {"/v1/chains", "/v1/workspace", "/v1/workspace/freeze"}
"""What is the same for every workspace, and what is one object."""

every_route = pytest.mark.parametrize("route", ROUTES, ids=str)


def _paths(app: FastAPI) -> Iterator[tuple[str, str]]:
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            if "security" in operation:
                yield method.upper(), path


def test_the_routes_listed_are_all_that_need_a_key(idle_api: Api):
    assert set(_paths(idle_api.app)) == {(route.method, route.template) for route in ROUTES}


def test_a_route_is_under_v1_or_among_the_few_that_everybody_may_ask(idle_api: Api):
    paths = {route.path for route in idle_api.app.state.routes}
    assert {path for path in paths if not path.startswith("/v1/")} == OPEN
    signed = {"/v1/hooks/phala/{workspace}"}
    assert {path for path in paths if path.startswith("/v1/")} - signed == {route.template for route in ROUTES}


TAKEN_ONCE = {HOOKS, "/v1/change-requests"}
"""An endpoint's URL, and the CVM of a change request."""


@every_route
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        KEYS["acme"],
        f"Basic {KEYS['acme']}",
        f"Bearer {KEYS['acme'][:-1]}",
        f"Bearer {KEYS['acme']}x",
        f"Bearer {mint(b'?' * 32)}",
    ],
    ids=["none", "empty", "no key", "no scheme", "basic", "short", "long", "unknown"],
)
def test_without_a_key_nothing_is_answered(idle_api: Api, route: Route, header: str | None):
    headers = {} if header is None else {"Authorization": header}
    answer = idle_api.nobody.request(route.method, route.path(), headers=headers, json=route.body)
    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@every_route
def test_without_a_key_no_body_is_read(idle_api: Api, route: Route):
    problem(idle_api.nobody.request(route.method, route.path(), content=b"{", headers=JSON), 401, "unauthorized")


@pytest.fixture
def keys(database: Database, workspaces: dict[str, str]) -> dict[Scope, str]:
    """A key of each scope."""
    for scope, key in SCOPED.items():
        rows.api_key(database, workspaces["acme"], key, scope)
    return SCOPED


def _with(api: Api, key: str, route: Route, path: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return api.nobody.request(route.method, path, headers=headers, json=route.body)


@every_route
def test_a_smaller_scope_is_refused_and_the_right_one_is_not(api: Api, keys: dict[Scope, str], route: Route):
    for scope, key in keys.items():
        answer = _with(api, key, route, route.path())
        if scope.includes(route.scope):
            taken = route.template in TAKEN_ONCE and answer.status_code == 409  # by the key before
            assert answer.status_code == 404 if route.has_id else answer.is_success or taken, answer.text
        else:
            body = problem(answer, 403, "insufficient_scope")
            needed = route.needs(scope).value
            assert f"scope {needed}" in body["detail"]
            assert f'scope="{needed}"' in answer.headers["www-authenticate"]


def _theirs(api: Api, database: Database, workspace_id: str) -> dict[str, str]:
    """One of everything, of the workspace ``other``."""
    endpoint = api.other.post(HOOKS, json={"url": "https://hooks.example.com/theirs"}).json()
    for kind in ("safes", "external-apps"):
        assert api.other.post(f"/v1/workspace/{kind}", json={"chain_id": 8453, "address": CONTRACT}).is_success
    delivery = api.other.post(f"{HOOKS}/{endpoint['id']}/test").json()
    return {
        "request_id": rows.change_request(database, workspace_id, State.RECEIVED),
        "key_id": rows.api_key(database, workspace_id, mint(b"theirs".ljust(32))),
        "endpoint_id": endpoint["id"],
        "delivery_id": delivery["id"],
        "event_id": delivery["event_id"],
        "contract": f"8453:{CONTRACT}",
    }


@pytest.mark.parametrize("route", [route for route in ROUTES if route.has_id], ids=str)
def test_what_another_workspace_has_does_not_exist(
    api: Api, database: Database, workspaces: dict[str, str], route: Route
):
    ids = _theirs(api, database, workspaces["other"])
    theirs = _with(api, KEYS["acme"], route, route.path(ids))
    nobodys = _with(api, KEYS["acme"], route, route.path())
    assert problem(theirs, 404, "not_found")["detail"] == problem(nobodys, 404, "not_found")["detail"]
    assert _with(api, KEYS["other"], route, route.path(ids)).status_code != 404


@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES if route.method == "GET" and not route.has_id and route.template not in NO_LISTS],
    ids=str,
)
def test_a_list_has_only_what_the_workspace_has(api: Api, database: Database, workspaces: dict[str, str], route: Route):
    theirs = set(_theirs(api, database, workspaces["other"]).values())
    assert not theirs & {item["id"] for item in _with(api, KEYS["acme"], route, route.path()).json()["items"]}
    assert theirs & {item["id"] for item in _with(api, KEYS["other"], route, route.path()).json()["items"]}


@every_route
def test_no_route_reads_more_than_its_bound(idle_api: Api, route: Route):
    content = b" " * (MAX_BODY_BYTES + 1)
    answer = idle_api.acme.request(route.method, route.path(), content=content, headers=JSON)
    problem(answer, 413, "body_too_large")


@pytest.mark.parametrize("route", [route for route in ROUTES if route.body is not None], ids=str)
def test_a_malformed_body_is_told(idle_api: Api, route: Route):
    def send(content: bytes, media_type: str = "application/json") -> httpx.Response:
        headers = {"Content-Type": media_type}
        return idle_api.acme.request(route.method, route.path(), content=content, headers=headers)

    problem(send(b"{"), 400, "malformed_json")
    problem(send(b"[" * 100_000), 400, "malformed_json")
    problem(send(b'{"name": "\\ud800"}'), 400, "malformed_json")
    problem(send(b"{}", "text/plain"), 415, "unsupported_media_type")
    for content in (b"[]", b"null", b'{"unknown": 1}'):
        assert problem(send(content), 422, "invalid_request")["errors"]


@every_route
def test_an_idempotency_key_that_is_none_is_refused_where_it_counts(idle_api: Api, route: Route):
    for value in ("", "x" * 256, "\u00e9"):
        headers = [(b"Idempotency-Key", value.encode("latin-1"))]
        answer = idle_api.acme.request(route.method, route.path(), headers=headers, json=route.body)
        if route.method == "POST":
            (part,) = problem(answer, 422, "invalid_request")["errors"]
            assert part["parameter"] == "Idempotency-Key"
        else:
            assert answer.status_code in (200, 404)
