"""Every act over the API leaves an event that says who, from where, and by which request."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import select

from service.api.examples import SUBMIT_PATCH
from service.domain.states import State
from service.store import audit
from service.store.audit import Checked, Wanted
from service.store.database import Database
from service.store.tables import ApiKey, Event
from tests.support import heard, rows
from tests.support.heard import SECRET
from tests.support.routes import HOOK, HOOKS, ROUTES
from tests.support.served_api import Api

REQUESTS = "/v1/change-requests"
KEYS = "/v1/api-keys"
ACTS: Mapping[tuple[str, str], tuple[dict[str, Any] | None, str]] = {
    ("POST", REQUESTS): (SUBMIT_PATCH, "change_request.received"),
    ("POST", f"{REQUESTS}/{{request_id}}/refresh"): (None, "change_request.refresh_requested"),
    ("POST", f"{REQUESTS}/{{request_id}}/cancel"): (None, "change_request.cancel_requested"),
    ("POST", KEYS): ({"name": "CI", "scope": "read"}, "api_key.created"),
    ("POST", f"{KEYS}/{{key_id}}/rotate"): ({}, "api_key.rotated"),
    ("DELETE", f"{KEYS}/{{key_id}}"): (None, "api_key.revoked"),
    ("POST", HOOKS): ({"url": "https://hooks.example.com/a"}, "webhook_endpoint.created"),
    ("PATCH", HOOK): ({"description": "x"}, "webhook_endpoint.updated"),
    ("POST", f"{HOOK}/test"): (None, "webhook_endpoint.test"),
    ("POST", f"{HOOK}/deliveries/{{delivery_id}}/resend"): (None, "webhook_endpoint.delivery_resent"),
    ("POST", f"{HOOK}/replay"): ({"since": "2026-01-01T00:00:00Z"}, "webhook_endpoint.events_replayed"),
    ("POST", f"{HOOK}/rotate-secret"): ({}, "webhook_endpoint.secret_rotated"),
    ("DELETE", HOOK): (None, "webhook_endpoint.deleted"),
}
"""What is done, in this order, and the event that tells of it."""


def _event(database: Database, request_id: str) -> Event:
    with database.transaction() as session:
        return session.scalars(select(Event).where(Event.origin["request_id"].astext == request_id)).one()


def test_every_act_says_who_and_from_where(api: Api, database: Database, workspaces: dict[str, str]):
    acme = workspaces["acme"]
    with database.reads() as session:
        key = session.scalars(select(ApiKey).where(ApiKey.workspace_id == acme)).one()
    made = {"request_id": rows.change_request(database, acme, State.PREPARED)}
    for number, ((method, template), (body, event_type)) in enumerate(ACTS.items()):
        request_id = f"audit-test-{number:03}"
        headers = {"X-Request-Id": request_id, "User-Agent": f"tests/1 {'x' * 300}"}
        answer = api.acme.request(method, template.format_map(made), json=body, headers=headers)
        assert answer.is_success, answer.text
        _note(made, event_type, answer)
        event = _event(database, request_id)
        assert event.type == event_type
        assert event.actor == {"kind": "api_key", "id": key.id, "name": key.name, "owners": []}
        assert event.origin == {
            "ip": "127.0.0.1", "request_id": request_id, "user_agent": headers["User-Agent"][:200],
        }  # fmt: skip
    found = [step for step in audit.check(database, Wanted()) if isinstance(step, Checked)]
    assert not any(one.broken or one.uncovered for one in found)


def _note(made: dict[str, str], event_type: str, answer: httpx.Response) -> None:
    """Keep the id of what was made, for what is done to it."""
    members = {"api_key.created": "key_id", "webhook_endpoint.created": "endpoint_id"}
    members["webhook_endpoint.test"] = "delivery_id"
    if event_type in members:
        made[members[event_type]] = answer.json()["id"]


def test_no_route_that_writes_is_left_out():
    assert set(ACTS) == {(route.method, route.template) for route in ROUTES if route.method != "GET"}


@pytest.mark.parametrize("repeat", ["cancel", "revoke", "delete", "unchanged"])
def test_what_changes_nothing_leaves_no_event(api: Api, database: Database, workspaces: dict[str, str], repeat: str):
    request_id = rows.change_request(database, workspaces["acme"])
    key = api.acme.post(KEYS, json={"name": "CI", "scope": "read"}).json()["id"]
    endpoint = api.acme.post(HOOKS, json={"url": "https://hooks.example.com/a"}).json()["id"]
    calls = {
        "cancel": ("POST", f"{REQUESTS}/{request_id}/cancel", None),
        "revoke": ("DELETE", f"{KEYS}/{key}", None),
        "delete": ("DELETE", f"{HOOKS}/{endpoint}", None),
        "unchanged": ("PATCH", f"{HOOKS}/{endpoint}", {"description": "new"}),
    }
    method, path, body = calls[repeat]
    counts = []
    for _ in range(3):
        assert api.acme.request(method, path, json=body).is_success
        with database.reads() as session:
            counts.append(len(session.scalars(select(Event.id)).all()))
    assert counts == [counts[0]] * 3


def test_phala_cloud_is_named_for_what_it_told(api: Api, database: Database):
    rows.workspace(database, "acme", phala_webhook_secrets=[SecretStr(SECRET)])
    body, headers = heard.webhook()
    headers |= {"X-Request-Id": "audit-test-hook", "User-Agent": "Phala"}
    assert api.nobody.post("/v1/hooks/phala/acme", content=body, headers=headers).status_code == 204
    event = _event(database, "audit-test-hook")
    assert event.type == "change_request.received"
    assert event.actor == {"kind": "phala_cloud", "id": "evt_0123456789abcdef", "name": None, "owners": []}
    assert event.origin == {"ip": "127.0.0.1", "request_id": "audit-test-hook", "user_agent": "Phala"}


def test_changed_settings_are_told_and_secrets_only_that_they_were(database: Database, workspace: str):
    rows.workspace(database, "acme")
    rows.workspace(
        database, "acme", deadline_seconds=600, phala_api_key=SecretStr("an entirely new key"), safes=[],
        phala_webhook_secrets=[SecretStr("whsec_new")],
    )  # fmt: skip
    with database.transaction() as session:
        acts = session.scalars(select(Event).where(Event.workspace_id == workspace).order_by(Event.seq)).all()
    assert [act.type for act in acts] == ["workspace.created", "workspace.updated"]
    assert json.loads(acts[1].body)["data"] == {
        "workspace": {"id": workspace, "slug": "acme"},
        "changes": {
            "deadline_seconds": {"from": 30 * 86400, "to": 600},
            "phala_api_key": "changed",
            "phala_webhook_secrets": "changed",
            "safes": {"from": [f"{rows.CHAIN_ID}:{rows.SAFE}"], "to": []},
        },
    }
    assert "new" not in acts[1].body
