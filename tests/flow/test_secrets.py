"""No secret is where others could read it, however badly the outside behaves."""

import base64
import json
from collections.abc import Callable, Iterator

import httpx
import psycopg
import pytest

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
        "OpenAPI": httpx.get(f"{stack.deployment.url}/openapi.json").content,
        "webhooks": leaks.as_bytes([one.payload for one in stack.receiver.received()]),
        "broker": "\n".join(broker.commands).encode(),
    }


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
    prepared = stack.prepare_elsewhere(handed_in, compose("handed in"))
    token = prepared["commit_token"]
    with Broker(stack.deployment.redis_url) as broker:
        _misbehave(stack, patched, handed_in, token)
        patched_id = stack.submit(patched, compose("secrets"))
        prepared_id = stack.post(prepared=prepared).json()["id"]
        stack.wait_for_reason(patched_id, Reason.PHALA_UNREACHABLE)
        stack.wait_for(patched_id, "proposed")
        tokens = {"token of the patch": _token(stack, patched_id), "token handed in": token}
        _ask_wrongly(stack, prepared)
        for request_id in (patched_id, prepared_id):
            stack.approve(request_id)
        stack.wait_for_reason(prepared_id, Reason.PHALA_UNREACHABLE)
        for request_id in (patched_id, prepared_id):
            _end_well(stack, request_id)
    written = _everywhere(stack, answers, broker)

    assert Secrets({**stack.deployment.secrets, **tokens}).found_in(written) == []
    assert written["worker.log"]
    # It did look: what is no secret is found in each kind of place, and what was repeated was heard.
    seen = Secrets({"id": patched_id, "echo": ECHO}).found_in(written)
    for place in ("id in table events", "id in webhooks", "id in broker", "id in base/", "echo in answer"):
        assert any(one.startswith(place) for one in seen), (place, seen)


@pytest.mark.parametrize(
    ("planted", "place"),
    [
        (lambda secret: secret.encode(), "log"),
        (lambda secret: secret.upper().encode(), "log"),
        (lambda secret: secret.replace("-", "").encode(), "log"),
        (lambda secret: secret.encode().hex().encode(), "table"),
        *((lambda secret, n=n: base64.b64encode(b"x" * n + secret.encode() + b"yy"), "broker") for n in range(4)),
    ],
)
def test_the_scan_finds_a_planted_secret(planted: Callable[[str], bytes], place: str):
    secret = "31fa651c-6e1f-45d4-bfad-dfe4b8e52950"
    secrets = Secrets({"token": secret, "other": "0123456789abcdef0123"})
    assert secrets.found_in({place: b"before " + planted(secret) + b" after", "clean": b"nothing"}) == [
        f"token in {place}"
    ]
