"""No secret is where others could read it, however badly the outside behaves."""

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import psycopg
import pytest

from sandbox.deployment import WORKSPACE
from service.domain.reasons import Reason
from service.store.sealing import Sealer
from service.store.tokens import TOKEN
from tests.support import leaks
from tests.support.leaks import Broker, Secrets
from tests.support.stack import Json, Stack, compose, first_cvm

ECHO = "the sandbox was sent this:"
KEPT_PRIVATE = ("secrets.json", "redis.conf", "password")
"""Files of the deployment that hold its secrets, readable by their owner only."""


@pytest.fixture
def answers(stack: Stack) -> Iterator[dict[str, bytes]]:
    """What the API answers in this test, heads and bodies."""
    seen: dict[str, bytes] = {}

    def keep(response: httpx.Response) -> None:
        place = f"answer {len(seen)} ({response.request.method} {response.request.url.path})"
        seen[place] = str(response.headers.multi_items()).encode() + response.read()

    stack.client.event_hooks["response"].append(keep)
    yield seen
    stack.client.event_hooks["response"].remove(keep)


def _sealed_token(stack: Stack, request_id: str) -> bytes | None:
    with psycopg.connect(stack.deployment.database_url) as connection:
        query = "SELECT commit_token_sealed FROM change_requests WHERE id = %s"
        row = connection.execute(query, [request_id]).fetchone()
    assert row is not None
    return row[0]


def _token(stack: Stack, request_id: str) -> str:
    """The commit token that is held for a request, opened with the deployment's keys."""
    sealer = Sealer({"k1": base64.b64decode(stack.deployment.secrets["encryption key k1"])}, bytes(32))
    sealed = _sealed_token(stack, request_id)
    assert sealed is not None
    return sealer.open(sealed, purpose=TOKEN, row_id=request_id).get_secret_value()


def _everywhere(stack: Stack, answers: dict[str, bytes], broker: Broker) -> dict[str, bytes]:
    """All that a deployment wrote, stored, sent and answered, and how its processes are called."""
    return {
        **leaks.files(stack.deployment.directory, but=KEPT_PRIVATE),
        **leaks.files(leaks.data_directory(stack.deployment.database_url)),
        **leaks.tables(stack.deployment.database_url),
        **leaks.command_lines(),
        **answers,
        "OpenAPI": stack.client.get("/openapi.json").content,
        "webhooks": leaks.as_bytes([one.payload for one in stack.receiver.received()]),
        "broker": "\n".join(broker.commands).encode(),
        **stack.metrics(),
        "traces": stack.collector.raw,
        "broker's content": leaks.broker_content(stack.deployment.redis_url),
        "audit log": stack.deployment.run("audit", "export", "--workspace", WORKSPACE).encode(),
    }


def _made_over_the_api(stack: Stack) -> dict[str, str]:
    """What is shown once, to whom it belongs: an endpoint's secrets, given and made, and keys of the API."""
    with httpx.Client(base_url=stack.client.base_url, headers=stack.client.headers, timeout=70) as owner:

        def made(path: str, body: Json) -> Json:
            answer = owner.post(path, json=body, headers={"Idempotency-Key": path})
            assert answer.is_success, answer.text
            return answer.json()

        hooks = "/v1/webhook-endpoints"
        endpoint = made(hooks, {"url": f"{stack.receiver.url}/of-the-api"})
        rotated = made(f"{hooks}/{endpoint['id']}/rotate-secret", {})
        key = made("/v1/api-keys", {"name": "read", "scope": "read"})
        successor = made(f"/v1/api-keys/{key['id']}/rotate", {})
    return {
        "secret of an endpoint": endpoint["secret"],
        "its next secret": rotated["secret"],
        "key of the API": key["key"],
        "its successor": successor["key"],
    }


def _read_everything(stack: Stack) -> None:
    """Answers that show what was delivered, tried, and done by whom."""
    for endpoint in stack.client.get("/v1/webhook-endpoints").json()["items"]:
        assert stack.client.get(f"/v1/webhook-endpoints/{endpoint['id']}/deliveries").json()["items"]
    assert stack.client.get("/v1/api-keys").json()["items"]
    feed = {"limit": 1000, "types": "change_request.*,webhook_endpoint.*,api_key.*,workspace.*"}
    assert stack.client.get("/v1/events", params=feed).json()["items"]


def _end_well(stack: Stack, request_id: str) -> None:
    stack.wait_for(request_id, "completed")
    assert _sealed_token(stack, request_id) is None
    events = len(stack.events(request_id))

    def all_told() -> bool:
        told = [one for one in stack.receiver.received() if one.payload["data"].get("id") == request_id]
        return len({one.message_id for one in told}) == events

    stack.wait_until(all_told)


def _ask_wrongly(stack: Stack, prepared: Json) -> None:
    """Errors whose cause holds secrets."""
    url = "/v1/change-requests"
    assert stack.post(prepared=prepared).status_code == 409
    assert stack.post(prepared={**prepared, "chain_id": 0}).status_code == 422
    assert stack.post(prepared={**prepared, "commit_token": prepared["commit_token"] + "0"}).status_code == 422
    assert stack.post(prepared=[prepared]).status_code == 422
    cut = json.dumps({"prepared": prepared})[:-1]
    assert stack.client.post(url, content=cut, headers={"Content-Type": "application/json"}).status_code == 400
    assert stack.client.get(url, params={"cursor": prepared["commit_token"]}).status_code == 422
    assert stack.client.get(f"{url}/{prepared['commit_token']}").status_code == 404
    wrong = {"Authorization": f"Bearer {stack.deployment.api_key}x"}
    assert stack.client.get(url, headers=wrong).status_code == 401


def _misbehave(stack: Stack, patched: str, handed_in: str, token: str) -> None:
    """Others fail, and repeat what they were sent in their answers."""
    patched, handed_in = (cvm.replace("-", "") for cvm in (patched, handed_in))
    _echo(stack, "PATCH", f"/cvms/{patched}", stack.world.setup.phala_api_key)
    stack.world.phala.drop_after("POST", f"/cvms/{patched}/commit-update")
    _echo(stack, "POST", f"/cvms/{handed_in}/commit-update", f"{token} {stack.world.setup.phala_api_key}")
    fault = {"method": "POST", "path": "*/multisig-transactions/", "status": 500, "times": 1}
    stack.safe_faults.post("/faults", json=fault).raise_for_status()
    stack.receiver.refuse(2)


def _echo(stack: Stack, method: str, path: str, sent: str) -> None:
    body = json.dumps({"detail": f"{ECHO} {sent}"})
    stack.world.phala.answer(method, path, status=503, content_type="application/json", body=body)


def test_no_secret_is_written_sent_or_shown(stack: Stack, answers: dict[str, bytes]):
    patched, handed_in = (first_cvm(stack.world.add_app()) for _ in range(2))
    with Broker(stack.deployment.redis_url) as broker, stack.told_by_phala() as hook_secrets, ExitStack() as later:
        shown_once = _made_over_the_api(stack)
        prepared = stack.prepare_elsewhere(handed_in, compose("handed in"))
        token = prepared["commit_token"]
        _misbehave(stack, patched, handed_in, token)
        patched_id = stack.submit(patched, compose("secrets"))
        prepared_id = _told(stack, handed_in)
        stack.wait_for_reason(patched_id, Reason.PHALA_UNREACHABLE)
        later.enter_context(stack.logging_everything())
        stack.wait_for(patched_id, "proposed")
        tokens = {"token of the patch": _token(stack, patched_id), "token handed in": token}
        _ask_wrongly(stack, prepared)
        for request_id in (patched_id, prepared_id):
            stack.approve(request_id)
        stack.wait_for_reason(prepared_id, Reason.PHALA_UNREACHABLE)
        for request_id in (patched_id, prepared_id):
            _end_well(stack, request_id)
        _read_everything(stack)
        written = _everywhere(stack, answers, broker)

    secrets = {**stack.deployment.secrets, **tokens, **shown_once}
    secrets |= {f"secret of Phala Cloud's webhooks {number}": secret for number, secret in enumerate(hook_secrets)}
    assert Secrets(secrets).found_in(written) == []
    assert Secrets({"id": patched_id}).found_in(stack.metrics()) == [], "labels have few values"
    assert b'countersign_transitions_total{source="committed",target="completed"}' in written["metrics of worker"]
    # It did look: what is no secret is found in each kind of place, and what was repeated was heard.
    seen = Secrets({"id": patched_id, "echo": ECHO}).found_in(written)
    for place in ("table events", "webhooks", "broker", "base/", "audit log", "traces"):
        assert any(one.startswith(f"id in {place}") for one in seen), (place, seen)
    assert any(one.startswith("echo in answer") for one in seen)
    log = written["worker.log"].splitlines()
    assert {line.startswith(b"{") for line in log} == {True, False}, "both forms were written"
    # And what is told is whole.
    assert stack.deployment.run("audit", "verify", "--strict").endswith(" 0 broken\n")


def _told(stack: Stack, cvm: str) -> str:
    """The change request that Phala Cloud's webhook about a prepare made."""
    found: list[Json] = []

    def there() -> bool:
        found[:] = stack.client.get("/v1/change-requests", params={"cvm_id": cvm}).json()["items"]
        return bool(found)

    stack.wait_until(there)
    return str(found[0]["id"])
