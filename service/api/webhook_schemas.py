"""What the API answers about webhook endpoints, deliveries and the feed, and how it comes from rows."""

import json
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from service.api import representation
from service.api.schemas import NO_ACTOR, OWN_HASH, PREVIOUS_HASH, ActorOut
from service.domain.states import State
from service.domain.webhooks import (
    DISABLED_ADVICE,
    FAULT_ADVICE,
    DeliveryState,
    DisabledReason,
    EndpointState,
    Fault,
    ManagedBy,
)
from service.store.tables import Event, WebhookAttempt, WebhookEndpoint
from service.store.webhook_history import Shown


class _Answer(BaseModel):
    """Members without a value are null, never absent."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class DisabledOut(_Answer):
    """Why the service sends nothing any more."""

    model_config = ConfigDict(title="WebhookEndpointDisabled")

    code: DisabledReason
    advice: str
    detail: str | None = Field(description="What the last attempt met")
    at: datetime


class EndpointLinks(_Answer):
    """Routes of an endpoint."""

    self: str
    deliveries: str


class EndpointOut(_Answer):
    """A receiver of the workspace's events."""

    model_config = ConfigDict(title="WebhookEndpoint")

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    url: str
    description: str | None
    event_types: list[str] = Field(description="Types and prefixes; empty: all")
    state: EndpointState
    managed_by: ManagedBy = Field(description="`file`: the workspace file says what it is")
    previous_secret_expires_at: datetime | None = Field(description="Until then the secret before signs too")
    last_success_at: datetime | None
    failing_since: datetime | None = Field(description="The first failure since the last success")
    disabled: DisabledOut | None
    created_at: datetime
    updated_at: datetime
    links: EndpointLinks


class EndpointWithSecret(EndpointOut):
    """An endpoint with its secret, which is shown this once."""

    model_config = ConfigDict(title="WebhookEndpointWithSecret")

    secret: str


class EndpointList(_Answer):
    """All endpoints that are not deleted, oldest first."""

    model_config = ConfigDict(title="WebhookEndpointList")

    object: Literal["list"] = "list"
    items: list[EndpointOut]


class FaultOut(_Answer):
    """Why an attempt failed."""

    model_config = ConfigDict(title="WebhookFault")

    code: Fault
    advice: str


class AttemptOut(_Answer):
    """One try of a delivery."""

    model_config = ConfigDict(title="WebhookAttempt")

    attempted_at: datetime
    duration_ms: int
    status: int | None = Field(description="HTTP status, null when no answer came")
    response: str | None = Field(description="What was answered or went wrong, clipped, on one printable line")
    fault: FaultOut | None


class DeliveryOut(_Answer):
    """One event on its way to one endpoint."""

    model_config = ConfigDict(title="WebhookDelivery")

    id: str
    object: Literal["webhook_delivery"] = "webhook_delivery"
    endpoint_id: str
    event_id: str = Field(description="The `webhook-id` of every attempt")
    event_type: str
    change_request_id: str | None
    state: DeliveryState
    attempt_count: int
    next_attempt_at: datetime | None = Field(description="Not before; null unless pending")
    created_at: datetime
    delivered_at: datetime | None
    attempts: list[AttemptOut] = Field(description="The newest 20, oldest first")

    @classmethod
    def of(cls, shown: Shown) -> Self:
        """As stored."""
        row = shown.delivery
        return cls(
            id=row.id,
            endpoint_id=row.endpoint_id,
            event_id=row.event_id,
            event_type=shown.event_type,
            change_request_id=row.change_request_id,
            state=DeliveryState(row.state),
            attempt_count=row.attempts,
            next_attempt_at=row.due_at,
            created_at=row.created_at,
            delivered_at=row.delivered_at,
            attempts=[_attempt(attempt) for attempt in shown.attempts],
        )


class DeliveryList(_Answer):
    """One page, newest first."""

    model_config = ConfigDict(title="WebhookDeliveryList")

    object: Literal["list"] = "list"
    items: list[DeliveryOut]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null on the last")


class ReplayOut(_Answer):
    """What a replay did."""

    model_config = ConfigDict(title="WebhookReplay")

    object: Literal["webhook_replay"] = "webhook_replay"
    deliveries: int = Field(description="How many are pending because of it")
    complete: bool = Field(description="Whether that was the whole range")
    next_since: str | None = Field(description="Give it as `since` for the rest; null if there is none")


class FeedEvent(_Answer):
    """An event of the workspace; webhooks carry the same ``type``, ``timestamp``, ``data``, ``actor`` and hashes."""

    id: str
    type: str
    change_request_id: str | None = Field(description="Null for what concerns the workspace itself")
    seq: int | None = Field(description="Counts from 1 without gaps, per change request, and for the workspace itself")
    state: State | None = Field(description="State of the change request after the event")
    timestamp: datetime
    data: dict[str, Any]
    actor: ActorOut | None = Field(description=NO_ACTOR)
    previous_hash: str | None = Field(description=PREVIOUS_HASH)
    hash: str | None = Field(description=OWN_HASH)

    @classmethod
    def of(cls, row: Event) -> Self:
        """As stored."""
        body = json.loads(row.body)
        return cls(
            id=row.id,
            type=row.type,
            change_request_id=row.change_request_id,
            seq=row.seq,
            state=None if row.state is None else State(row.state),
            timestamp=body["timestamp"],
            data=body["data"],
            actor=representation.actor(row),
            previous_hash=row.previous_hash,
            hash=row.hash,
        )


class Feed(_Answer):
    """Events of the workspace, oldest first."""

    object: Literal["list"] = "list"
    items: list[FeedEvent]
    next_cursor: str = Field(description="Give it as `cursor` to read on, now or later; never null")
    has_more: bool = Field(description="Whether there is more already")


def _attempt(row: WebhookAttempt) -> AttemptOut:
    fault = None if row.fault is None else Fault(row.fault)
    return AttemptOut(
        attempted_at=row.attempted_at,
        duration_ms=row.duration_ms,
        status=row.status,
        response=row.detail,
        fault=None if fault is None else FaultOut(code=fault, advice=FAULT_ADVICE[fault]),
    )


def endpoint(row: WebhookEndpoint, public_url: str) -> EndpointOut:
    """An endpoint as stored; its secret is not read."""
    return EndpointOut(**_members(row, public_url))


def with_secret(row: WebhookEndpoint, public_url: str, secret: str) -> EndpointWithSecret:
    """The same with the secret it was just given."""
    return EndpointWithSecret(**_members(row, public_url), secret=secret)


def _members(row: WebhookEndpoint, public_url: str) -> dict[str, Any]:
    url = f"{public_url}/v1/webhook-endpoints/{row.id}"
    return {
        "id": row.id,
        "url": row.url,
        "description": row.description,
        "event_types": row.event_types,
        "state": row.state,
        "managed_by": row.managed_by,
        "previous_secret_expires_at": row.previous_secret_expires_at,
        "last_success_at": row.last_success_at,
        "failing_since": row.failing_since,
        "disabled": _disabled(row),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "links": EndpointLinks(self=url, deliveries=f"{url}/deliveries"),
    }


def _disabled(row: WebhookEndpoint) -> DisabledOut | None:
    if row.disabled_reason is None or row.disabled_at is None:
        return None
    code = DisabledReason(row.disabled_reason)
    return DisabledOut(code=code, advice=DISABLED_ADVICE[code], detail=row.disabled_detail, at=row.disabled_at)
