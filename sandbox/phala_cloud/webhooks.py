"""Workspace webhooks: what is sent, how it is signed, and who receives it."""

import hashlib
import hmac
import json
import secrets
import sqlite3

from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.records import Cvm, Workspace, kms_by_id, workspace_by_id
from sandbox.phala_cloud.settings import iso
from sandbox.phala_cloud.world import World

PENDING_APPROVAL = "cvm.update.pending_approval"
EVENTS = (
    PENDING_APPROVAL,
    "cvm.replica.pending_approval",
    "cvm.created",
    "cvm.started",
    "cvm.create_failed",
    "cvm.restarted",
    "cvm.updated",
    "cvm.stopped",
    "cvm.deleted",
)


def new_secret() -> str:
    """`whsec_` and 43 characters; the prefix is part of the signing key."""
    return f"whsec_{secrets.token_urlsafe(32)}"


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """`sha256=` and the HMAC-SHA256 over timestamp, a dot and the raw body."""
    message = str(timestamp).encode() + b"." + body
    return f"sha256={hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()}"


def headers(event_id: str, event_type: str, secret: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of one delivery."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "PhalaCloud-Webhook/1.0",
        "X-Webhook-Id": event_id,
        "X-Webhook-Event": event_type,
        "X-Webhook-Timestamp": str(timestamp),
        "X-Webhook-Signature": signature(secret, timestamp, body),
    }


def pending_approval_data(
    world: World,
    cvm: Cvm,
    compose_hash: str,
    credentials: Json,
    expires_at: float,
) -> Json:
    """The `data` of `cvm.update.pending_approval`.

    `compose_hash` is bare; `credentials` holds commit_token, commit_url and api_commit_url of the 465 answer.
    """
    workspace = workspace_by_id(world.database, cvm.workspace_id)
    kms = kms_by_id(world.database, cvm.kms_id)
    prefixed = f"0x{compose_hash}"
    return {
        "cvm_id": cvm.vm_uuid,
        "cvm_name": cvm.name,
        "compose_hash": prefixed,
        "app_id": cvm.app_address,
        "device_id": f"0x{cvm.device_id}",
        "kms": {"chain_id": kms.chain_id, "contract_address": kms.contract_address},
        "onchain_action": {
            "to": cvm.app_address,
            "method": "addComposeHash(bytes32)",
            # Phala names it calldata and sends the bare hash, without a selector.
            "calldata": prefixed,
        },
        **credentials,
        "expires_at": iso(expires_at),
        "initiated_by": {"user_id": workspace.user_hashed_id, "username": workspace.username},
    }


def emit(world: World, workspace: Workspace, event_type: str, data: Json) -> None:
    """Queue an event for every enabled endpoint of the workspace that asked for it.

    Call it inside the transaction of what the event tells about, and ring the world after the commit.
    """
    event = {
        "id": _new_event_id(),
        "event": event_type,
        "version": "1",
        "created_at": iso(world.clock.now()),
        "workspace": {"id": workspace.slug, "name": workspace.name},
        "data": data,
    }
    for hook in world.database.all(
        "SELECT * FROM webhooks WHERE workspace_id = ? AND enabled = 1",
        workspace.id,
    ):
        if event_type in json.loads(hook["events"]):
            _queue(world, hook, event_type, event)


def _queue(world: World, hook: sqlite3.Row, event_type: str, event: Json, original_event_id: str = "") -> None:
    """Store one delivery, due at once."""
    now = world.clock.now()
    world.database.insert(
        "deliveries",
        webhook_id=hook["id"],
        event_id=event["id"],
        event_type=event_type,
        original_event_id=original_event_id,
        body=json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode(),
        status="pending",
        attempts=0,
        next_attempt_at=now,
        request_url=hook["url"],
        response_status=0,
        error_message="",
        duration_ms=0,
        created_at=now,
    )


def resend(world: World, webhook_id: str, event_id: str) -> str | None:
    """Queue a sent event again under a new id that is linked to the original; None if there is none."""
    hook = world.database.one("SELECT * FROM webhooks WHERE id = ?", webhook_id)
    sent = world.database.one(
        "SELECT * FROM deliveries WHERE webhook_id = ? AND event_id = ?",
        webhook_id,
        event_id,
    )
    if hook is None or sent is None:
        return None
    new_id = _new_event_id()
    event = json.loads(sent["body"]) | {"id": new_id}
    _queue(world, hook, sent["event_type"], event, sent["original_event_id"] or event_id)
    return new_id


def _new_event_id() -> str:
    return f"evt_{secrets.token_hex(8)}"
