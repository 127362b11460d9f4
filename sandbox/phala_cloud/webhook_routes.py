"""Management of workspace webhooks and their deliveries.

Phala demands a public https address; here any http address will do, since receivers are local.
"""

import json
import secrets
import sqlite3
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, HttpUrl, field_validator

from sandbox.phala_cloud import errors, webhooks
from sandbox.phala_cloud.deps import Caller, WorldDep
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.records import Workspace
from sandbox.phala_cloud.settings import iso
from sandbox.phala_cloud.world import World

router = APIRouter(prefix="/workspace/webhooks")


class WebhookUpdate(BaseModel):
    """Body of PUT: only members given are changed."""

    url: HttpUrl | None = None
    name: str | None = Field(default=None, max_length=100)
    events: list[str] | None = None
    enabled: bool | None = None

    @field_validator("events")
    @classmethod
    def _known(cls, events: list[str] | None) -> list[str] | None:
        unknown = sorted(set(events or []) - set(webhooks.EVENTS))
        if unknown:
            raise ValueError(f"unknown events: {', '.join(unknown)}")
        return events


class WebhookCreate(WebhookUpdate):
    """Body of POST; without `secret` the server makes one."""

    url: HttpUrl
    events: list[str]
    secret: str | None = None


@router.get("")
def list_webhooks(world: WorldDep, caller: Caller) -> list[Json]:
    """The workspace's endpoints, without secrets."""
    rows = world.database.all("SELECT * FROM webhooks WHERE workspace_id = ? ORDER BY created_at", caller.id)
    return [_webhook(row) for row in rows]


@router.post("", status_code=201)
def create_webhook(world: WorldDep, caller: Caller, body: WebhookCreate) -> Json:
    """Register an endpoint."""
    return create(world, caller, body)


@router.get("/{webhook_id}")
def get_webhook(world: WorldDep, caller: Caller, webhook_id: str) -> Json:
    """One endpoint, without its secret."""
    return _webhook(_find(world, caller, webhook_id))


@router.put("/{webhook_id}")
def update_webhook(world: WorldDep, caller: Caller, webhook_id: str, body: WebhookUpdate) -> Json:
    """Change an endpoint."""
    _find(world, caller, webhook_id)
    changes = body.model_dump(exclude_none=True, mode="json")
    if "events" in changes:
        changes["events"] = json.dumps(changes["events"])
    world.database.update("webhooks", webhook_id, **changes, updated_at=world.clock.now())
    return _webhook(_find(world, caller, webhook_id))


@router.delete("/{webhook_id}", status_code=204)
def delete_webhook(world: WorldDep, caller: Caller, webhook_id: str) -> None:
    """Remove an endpoint and its deliveries."""
    _find(world, caller, webhook_id)
    world.database.run("DELETE FROM webhooks WHERE id = ?", webhook_id)


@router.get("/{webhook_id}/deliveries")
def list_deliveries(
    world: WorldDep,
    caller: Caller,
    webhook_id: str,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> list[Json]:
    """Deliveries of an endpoint, newest first."""
    _find(world, caller, webhook_id)
    rows = world.database.all(
        "SELECT * FROM deliveries WHERE webhook_id = ? ORDER BY id DESC LIMIT ? OFFSET ?",
        webhook_id,
        limit,
        offset,
    )
    return [_delivery(row) for row in rows]


@router.post("/{webhook_id}/deliveries/{event_id}/resend")
def resend_delivery(world: WorldDep, caller: Caller, webhook_id: str, event_id: str) -> Json:
    """Send an event again under a new id. Phala documents the endpoint but not its answer."""
    _find(world, caller, webhook_id)
    with world.database.transaction():
        new_id = webhooks.resend(world, webhook_id, event_id)
    if new_id is None:
        raise errors.plain(404, "Delivery not found")
    world.ring()
    return {"event_id": new_id, "original_event_id": event_id, "status": "pending"}


@router.get("/{webhook_id}/stats")
def get_stats(world: WorldDep, caller: Caller, webhook_id: str) -> Json:
    """How the deliveries of an endpoint went; those still to come count for neither."""
    _find(world, caller, webhook_id)
    rows = world.database.all("SELECT * FROM deliveries WHERE webhook_id = ? ORDER BY id", webhook_id)
    succeeded = [row for row in rows if row["status"] == "success"]
    durations = [row["duration_ms"] for row in rows if row["attempts"]]
    return {
        "total": len(rows),
        "success_count": len(succeeded),
        "failed_count": sum(row["status"] == "failed" for row in rows),
        "success_rate": len(succeeded) / len(rows) if rows else 0.0,
        "avg_duration_ms": sum(durations) // len(durations) if durations else 0,
        "max_duration_ms": max(durations, default=0),
        "last_delivery_at": iso(rows[-1]["created_at"]) if rows else None,
    }


@router.post("/{webhook_id}/reveal-secret")
def reveal_secret(world: WorldDep, caller: Caller, webhook_id: str) -> Json:
    """Needs a second factor, which no API key has."""
    _find(world, caller, webhook_id)
    raise errors.plain(403, "Two-factor authentication required")


@router.post("/{webhook_id}/rotate-secret")
def rotate_secret(world: WorldDep, caller: Caller, webhook_id: str) -> Json:
    """Needs a second factor, which no API key has."""
    _find(world, caller, webhook_id)
    raise errors.plain(403, "Two-factor authentication required")


def create(world: World, workspace: Workspace, wanted: WebhookCreate) -> Json:
    """Store an endpoint; the answer alone holds its secret."""
    secret = wanted.secret or webhooks.new_secret()
    now = world.clock.now()
    webhook_id = f"whk_{secrets.token_hex(6)}"
    world.database.insert(
        "webhooks",
        id=webhook_id,
        workspace_id=workspace.id,
        url=str(wanted.url),
        name=wanted.name,
        events=json.dumps(wanted.events),
        secret=secret,
        enabled=1,
        created_at=now,
        updated_at=now,
    )
    return _webhook(_find(world, workspace, webhook_id)) | {"secret": secret}


def _find(world: World, workspace: Workspace, webhook_id: str) -> sqlite3.Row:
    row = world.database.one(
        "SELECT * FROM webhooks WHERE id = ? AND workspace_id = ?",
        webhook_id,
        workspace.id,
    )
    if row is None:
        raise errors.plain(404, "Webhook not found")
    return row


def _webhook(row: sqlite3.Row) -> Json:
    return {
        "id": row["id"],
        "url": row["url"],
        "name": row["name"],
        "events": json.loads(row["events"]),
        "enabled": bool(row["enabled"]),
        "secret": None,
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
    }


def _delivery(row: sqlite3.Row) -> Json:
    delivered = row["delivered_at"]
    return {
        "snowflake_id": row["id"],
        "event_id": row["event_id"],
        "event_type": row["event_type"],
        "original_event_id": row["original_event_id"],
        "status": row["status"],
        "attempts": row["attempts"],
        "request_url": row["request_url"],
        "response_status": row["response_status"],
        "error_message": row["error_message"],
        "duration_ms": row["duration_ms"],
        "created_at": iso(row["created_at"]),
        "delivered_at": None if delivered is None else iso(delivered),
    }
