"""Webhooks the sandbox sends: their body, signature, retries and management."""

import hashlib
import hmac
import itertools
import json
import time

import pytest

from sandbox.phala_cloud.control import Control
from sandbox.phala_cloud.deliveries import RETRY_AFTER_SECONDS
from sandbox.polling import wait_for
from tests.support.phala_cloud import Json, OnChainCvm, Received, Receiver, Team

pytestmark = pytest.mark.chain

PENDING = "cvm.update.pending_approval"
MINUTE, HOUR = 60, 3600


def register(team: Team, receiver: Receiver, **members: object) -> Json:
    return team.control.register_webhook(team.slug, receiver.url, **({"events": [PENDING]} | members))


def check_signature(received: Received, secret: str) -> None:
    timestamp = received.headers["x-webhook-timestamp"]
    message = timestamp.encode() + b"." + received.body
    expected = hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
    assert received.headers["x-webhook-signature"] == f"sha256={expected}"
    assert abs(int(timestamp) - time.time()) < 60


def test_every_prepare_is_told(cvm: OnChainCvm, receiver: Receiver):
    hook = register(cvm.team, receiver)
    prepared = cvm.prepare()
    (received,) = receiver.wait_for(1)
    check_signature(received, hook["secret"])
    event = json.loads(received.body)
    assert received.headers["x-webhook-id"] == event["id"]
    assert received.headers["x-webhook-event"] == event["event"] == PENDING
    assert received.headers["user-agent"] == "PhalaCloud-Webhook/1.0"
    assert event["version"] == "1"
    assert event["workspace"] == {"id": cvm.team.slug, "name": cvm.team.slug}
    data, app, compose_hash = event["data"], cvm.app.lower(), f"0x{prepared['compose_hash']}"
    assert data.pop("expires_at") > event["created_at"]
    assert data.pop("initiated_by")["username"] == "alice"
    assert data == {
        "cvm_id": cvm.vm_uuid,
        "cvm_name": "my-app",
        "compose_hash": compose_hash,
        "app_id": app,
        "device_id": f"0x{prepared['device_id']}",
        "kms": {"chain_id": 31337, "contract_address": prepared["kms_info"]["kms_contract_address"]},
        "onchain_action": {"to": app, "method": "addComposeHash(bytes32)", "calldata": compose_hash},
        "commit_token": prepared["commit_token"],
        "commit_url": prepared["commit_url"],
        "api_commit_url": prepared["api_commit_url"],
    }
    cvm.prepare()
    again = json.loads(receiver.wait_for(2)[1].body)
    assert again["id"] != event["id"]
    assert again["data"]["commit_token"] != prepared["commit_token"]


def test_outcome_of_an_update_is_told_who_asked_for_it(cvm: OnChainCvm, receiver: Receiver):
    register(cvm.team, receiver, events=["cvm.updated"])
    prepared = cvm.prepare()
    cvm.register(prepared["compose_hash"])
    cvm.team.control.add_mishap(cvm.vm_uuid, "boot_failure", "kernel panic")
    cvm.commit(prepared["commit_token"])
    (received,) = receiver.wait_for(1)
    event = json.loads(received.body)
    assert (event["event"], event["data"]["status"], event["data"]["error"]) == (
        "cvm.updated",
        "error",
        "kernel panic",
    )


def delivery(team: Team, hook: Json) -> Json:
    listing: list[Json] = team.api.get(f"/workspace/webhooks/{hook['id']}/deliveries").json()
    return listing[0]


def wait_for_attempts(team: Team, hook: Json, attempts: int) -> Json:
    assert wait_for(lambda: delivery(team, hook)["attempts"] >= attempts, 10)
    return delivery(team, hook)


def test_the_retry_schedule_is_the_documented_one():
    assert RETRY_AFTER_SECONDS == (MINUTE, 10 * MINUTE, HOUR)


def test_retries_after_a_minute_ten_and_an_hour_then_gives_up(cvm: OnChainCvm, receiver: Receiver, control: Control):
    hook = register(cvm.team, receiver)
    receiver.statuses = [500, 302, 503, 404]
    offset = control.settings()["clock_offset"]
    cvm.prepare()
    try:
        for attempt, (status, pause) in enumerate([(500, MINUTE), (302, 10 * MINUTE), (503, HOUR), (404, 0)], start=1):
            seen = wait_for_attempts(cvm.team, hook, attempt)
            assert (seen["attempts"], seen["response_status"]) == (attempt, status)
            assert seen["status"] == ("failed" if attempt == 4 else "pending")
            control.advance_clock(pause - 10 if pause else 24 * HOUR)
            control.advance_clock(10)
        sent_at = [entry["at"] for entry in control.ledger("delivery", cvm.vm_uuid)]
        pauses = [later - earlier for earlier, later in itertools.pairwise(sent_at)]
        # The ledger's line is written a moment after the attempt; a second is more than that moment.
        assert all(pause > due - 1 for pause, due in zip(pauses, RETRY_AFTER_SECONDS, strict=True)), pauses
        assert len(receiver.received) == 4
        assert len({received.headers["x-webhook-id"] for received in receiver.received}) == 1
        for received in receiver.received:
            check_signature(received, hook["secret"])
    finally:
        control.settings(clock_offset=offset)


def test_retry_that_succeeds_is_the_last(cvm: OnChainCvm, receiver: Receiver, control: Control):
    hook = register(cvm.team, receiver)
    receiver.statuses = [500]
    cvm.prepare()
    wait_for_attempts(cvm.team, hook, 1)
    control.advance_clock(MINUTE)
    seen = wait_for_attempts(cvm.team, hook, 2)
    assert (seen["status"], seen["response_status"]) == ("success", 204)
    assert seen["delivered_at"] is not None
    stats = cvm.team.api.get(f"/workspace/webhooks/{hook['id']}/stats").json()
    assert (stats["total"], stats["success_count"], stats["failed_count"]) == (1, 1, 0)


def test_resend_makes_a_new_id_linked_to_the_original(cvm: OnChainCvm, receiver: Receiver):
    hook = register(cvm.team, receiver)
    cvm.prepare()
    original = json.loads(receiver.wait_for(1)[0].body)
    path = f"/workspace/webhooks/{hook['id']}/deliveries"
    answer = cvm.team.api.post(f"{path}/{original['id']}/resend")
    assert answer.status_code == 200
    resent = receiver.wait_for(2)[1]
    check_signature(resent, hook["secret"])
    event = json.loads(resent.body)
    assert event == original | {"id": answer.json()["event_id"]}
    first, second = cvm.team.api.get(path).json()
    assert (first["event_id"], first["original_event_id"]) == (event["id"], original["id"])
    assert (second["event_id"], second["original_event_id"]) == (original["id"], "")
    assert cvm.team.api.post(f"{path}/evt_0000000000000000/resend").status_code == 404
    assert [one["event_id"] for one in cvm.team.api.get(path, params={"offset": 1}).json()] == [original["id"]]


def test_rotated_secret_signs_at_once(cvm: OnChainCvm, receiver: Receiver, control: Control):
    hook = register(cvm.team, receiver)
    secret = control.rotate_webhook_secret(hook["id"])
    assert secret != hook["secret"]
    cvm.prepare()
    check_signature(receiver.wait_for(1)[0], secret)


def test_retries_may_keep_the_first_timestamp(cvm: OnChainCvm, receiver: Receiver, control: Control):
    hook = register(cvm.team, receiver)
    receiver.statuses = [500]
    control.settings(resign_retries=False)
    try:
        cvm.prepare()
        wait_for_attempts(cvm.team, hook, 1)
        control.advance_clock(MINUTE)
        first, second = receiver.wait_for(2)
        assert first.headers == second.headers
    finally:
        control.settings(resign_retries=True)


def test_management(team: Team, receiver: Receiver):
    path = "/workspace/webhooks"
    created = team.api.post(path, json={"url": receiver.url, "events": [PENDING], "name": "ops"})
    assert created.status_code == 201
    hook = created.json()
    assert hook["secret"].startswith("whsec_")
    assert team.api.get(f"{path}/{hook['id']}").json() == hook | {"secret": None}
    changed = team.api.put(f"{path}/{hook['id']}", json={"enabled": False, "events": ["cvm.updated"]}).json()
    assert (changed["enabled"], changed["events"], changed["name"]) == (False, ["cvm.updated"], "ops")
    assert [one["id"] for one in team.api.get(path).json()] == [hook["id"]]
    for secret in ("reveal-secret", "rotate-secret"):
        assert team.api.post(f"{path}/{hook['id']}/{secret}").status_code == 403
    assert team.api.post(path, json={"url": "no url", "events": [PENDING]}).status_code == 422
    assert team.api.post(path, json={"url": receiver.url, "events": ["cvm.exploded"]}).status_code == 422
    stranger = Team.create(team.control)
    assert stranger.api.get(f"{path}/{hook['id']}").status_code == 404
    stranger.api.close()
    assert team.api.delete(f"{path}/{hook['id']}").status_code == 204
    assert team.api.get(path).json() == []


def test_disabled_endpoint_and_other_workspaces_hear_nothing(cvm: OnChainCvm, receiver: Receiver):
    hook = register(cvm.team, receiver)
    cvm.team.api.put(f"/workspace/webhooks/{hook['id']}", json={"enabled": False})
    stranger = Team.create(cvm.team.control)
    register(stranger, receiver)
    stranger.api.close()
    cvm.prepare()
    heard = register(cvm.team, receiver)
    prepared = cvm.prepare()
    (received,) = receiver.wait_for(1)
    check_signature(received, heard["secret"])
    assert json.loads(received.body)["data"]["commit_token"] == prepared["commit_token"]
