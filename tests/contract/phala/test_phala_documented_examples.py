"""The examples of the documentation, executed in order against a local server."""

from __future__ import annotations

import hashlib
import hmac
import inspect
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak

from service.phala import PhalaCloud
from tests.contract.phala.vectors import expand, load

if TYPE_CHECKING:
    import pytest

    from tests.contract.phala.recording import Recorded, RecordingServer

PAGE = Path(__file__).parents[3] / "docs" / "phala-client.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
PREFIX = "/api/v1"
APP = "09cef33ca9c6e4f2b1d5a7c3e8f0b2a4d6e8f1c3"
UUID = "01234567-89ab-4def-8123-456789abcdef"
HASH = "ab" * 32
KMS = PrivateKey(b"\x53" * 32)
ENV_KEY = "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"
NOW = 1775824496
WEBHOOK_BODY = load("webhooks")["vectors"][0]["body"].encode()


def signed_env_key() -> dict[str, str]:
    message = b"dstack-env-encrypt-pubkey:" + bytes.fromhex(APP) + bytes.fromhex(ENV_KEY)
    return {"public_key": ENV_KEY, "signature": KMS.sign_msg_hash(keccak(message)).to_bytes().hex()}


def operation(name: str) -> dict[str, str]:
    return {
        "correlation_id": name,
        "operation_type": "compose_update",
        "status": "completed",
        "started_at": "2026-01-01T00:00:00Z",
    }


APP_COMPOSE = '{"docker_compose_file":"services: {}\\n","runner":"docker-compose"}'


def attestation() -> dict[str, Any]:
    measured = hashlib.sha256(APP_COMPOSE.encode()).hexdigest()
    event = {"imr": 3, "event_type": 134217729, "digest": "00", "event": "compose-hash", "event_payload": measured}
    registers = dict.fromkeys(("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"), "00" * 48)
    return {"is_online": True, "tcb_info": {**registers, "app_compose": APP_COMPOSE, "event_log": [event]}}


TIMES = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}

#: Answers that the recorded calls lack.
OTHERS: dict[tuple[str, str], Any] = {
    ("GET", "/cvms/my-app/state"): {"name": "my-app", "status": "running"},
    ("GET", "/cvms/my-app/compose_file"): json.loads(APP_COMPOSE),
    ("GET", "/cvms/my-app/attestation"): attestation(),
    ("PATCH", "/cvms/my-app/listed"): {"id": 7, "name": "my-app", "status": "running", "listed": False},
    ("GET", "/cvms/my-app/commit-update"): {"anything": "undocumented"},
    ("GET", "/cvms/my-app/operations"): {
        "items": [operation("corr_1"), operation("corr_2")],
        "next_cursor": None,
        "total": 2,
    },
    ("GET", f"/apps/{APP}/kms-info"): {"is_onchain_kms": True, "chain_id": 8453, "deployer_type": "safe"},
    ("GET", f"/apps/{APP}/pending-updates"): {"items": [{"vm_uuid": UUID, "compose_hash": HASH, "on_chain": False}]},
    ("GET", f"/apps/{APP}/pending-updates/{UUID}/{HASH}/preview"): {"pending_docker_compose": "services: {}\n"},
    ("GET", "/kms"): {"items": [], "total": 0, "page": 1, "page_size": 50, "pages": 0},
    ("GET", f"/kms/kms-base-prod5/pubkey/{APP}"): signed_env_key(),
    ("GET", "/workspace/webhooks"): [
        {"id": "whk_1", "url": "https://countersign.example/v1/hooks/phala/acme", "events": [], "enabled": True} | TIMES
    ],
    ("GET", "/workspace/webhooks/whk_1/deliveries"): [
        {
            "snowflake_id": 1,
            "event_id": "evt_1",
            "event_type": "cvm.update.pending_approval",
            "status": "failed",
            "attempts": 4,
            "request_url": "https://countersign.example/v1/hooks/phala/acme",
            "response_status": 502,
            "error_message": "",
        }
        | TIMES
    ],
    ("POST", "/workspace/webhooks/whk_1/deliveries/evt_1/resend"): {},
    ("GET", "/cvms/missing-app"): None,
}


def shape(path: str) -> str:
    """A path without the identifier of its CVM or app."""
    return re.sub(r"^/(cvms|apps)/(?!paginated|instance-ids)[^/]+", r"/\1/*", path)


def recorded_answers() -> dict[tuple[str, str, bool], dict[str, Any]]:
    """The first answer the official SDK could read, by method, shape of the path, and whether it was a prepare."""
    found: dict[tuple[str, str, bool], dict[str, Any]] = {}
    for case in load("requests")["cases"]:
        if case["requests"] and "returned" in case:
            request = case["requests"][-1]
            prepare = "x-prepare-only" in request["headers"]
            found.setdefault((request["method"], shape(request["path"]), prepare), case["canned_responses"][-1])
    return found


def test_every_example_runs(server: RecordingServer, monkeypatch: pytest.MonkeyPatch):
    known = recorded_answers()

    def respond(request: Recorded) -> dict[str, Any]:
        where = urlsplit(request.target).path.removeprefix(PREFIX)
        if "text/event-stream" in request.headers["accept"]:
            text = 'event: state\ndata: {"name":"my-app","status":"running"}\n\nevent: complete\ndata: {}\n\n'
            return {"status": 200, "headers": {"content-type": "text/event-stream"}, "body": text}
        if (request.method, where) in OTHERS:
            body = OTHERS[request.method, where]
            return {"status": 404, "body": {"detail": "gone"}} if body is None else {"status": 200, "body": body}
        if '"spent-token"' in request.body:
            return {"status": 466, "body": {"error_code": "ERR-01-006", "message": "spent"}}
        key = (request.method, shape(where), "x-prepare-only" in request.headers)
        if key in known:
            answer: dict[str, Any] = expand(known[key])
            return answer
        raise AssertionError(f"no answer for {request.method} {where}")

    server.respond = respond
    monkeypatch.setenv("PHALA_CLOUD_API_PREFIX", server.url + PREFIX)
    monkeypatch.setenv("PHALA_CLOUD_API_KEY", "phak_documentation")
    signature = hmac.new(b"whsec_new", f"{NOW}.".encode() + WEBHOOK_BODY, hashlib.sha256).hexdigest()
    names: dict[str, Any] = {
        "print": lambda *_: None,
        "kms_public_key": KMS.public_key.to_compressed_bytes().hex(),
        "webhook_body": WEBHOOK_BODY,
        "webhook_headers": {"X-Webhook-Timestamp": str(NOW), "X-Webhook-Signature": f"sha256={signature}"},
        "webhook_time": NOW,
    }
    try:
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"{PAGE.name}, example {number + 1}", "exec"), names)  # noqa: S102 - our own page
    finally:
        names["cloud"].close()
    assert all(request.headers["x-api-key"] == "phak_documentation" for request in server.requests)


def test_the_page_shows_every_function():
    public = {name for name, _ in inspect.getmembers(PhalaCloud, inspect.isfunction) if not name.startswith("_")}
    shown = set(re.findall(r"cloud\.(\w+)\(", "\n".join(BLOCKS)))
    assert public <= shown
