"""Events and their way out."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from service.domain.webhooks import DeliveryState, DisabledReason, EndpointState, Fault, ManagedBy
from service.store.columns import Base, Leased, one_of

THIS_TRANSACTION = "pg_current_xact_id()::text::bigint"
"""SQL of the number of the transaction that writes; they begin in this order and commit in any."""


class Event(Base):
    """What happened to a change request, or was done to a workspace: the audit log. A trigger keeps it append-only.

    ``body`` is the exact text that webhooks carry. ``change_request_id`` and ``state`` are null in acts on a workspace,
    which have numbers (``seq``) and hashes of their own. ``seq`` of an act, ``actor`` and the hashes (hex digits, see
    ``service.domain.audit``) are null in what a version wrote that did not know them.
    """

    __tablename__ = "events"

    position: Mapped[int] = mapped_column(Identity(), primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    change_request_id: Mapped[str | None] = mapped_column(ForeignKey("change_requests.id"))
    seq: Mapped[int | None]
    type: Mapped[str]
    state: Mapped[str | None]
    body: Mapped[str]
    created_at: Mapped[datetime]
    actor: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    origin: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    previous_hash: Mapped[str | None]
    hash: Mapped[str | None]
    transaction_id: Mapped[int] = mapped_column(server_default=text(f"({THIS_TRANSACTION})"))

    __table_args__ = (
        UniqueConstraint("change_request_id", "seq"),
        CheckConstraint(
            "(change_request_id IS NULL) = (state IS NULL) AND (change_request_id IS NULL OR seq IS NOT NULL)",
            name="of_a_request",
        ),
        CheckConstraint(
            "(hash IS NULL) = (previous_hash IS NULL) AND (hash IS NULL OR (seq IS NOT NULL AND actor IS NOT NULL))",
            name="hashes",
        ),
        Index("uq_events_act", "workspace_id", "seq", unique=True, postgresql_where=text("change_request_id IS NULL")),
        Index("ix_events_workspace_id", "workspace_id", "transaction_id", "position"),
    )


class ActChain(Base):
    """The end of the chain of a workspace's own acts. A row of its own, locked last: see ``service.store.acts``."""

    __tablename__ = "act_chains"

    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    last_seq: Mapped[int]
    last_hash: Mapped[str]


class WebhookEndpoint(Leased, Base):
    """Where a workspace wants its events.

    The unit of delivery: whoever leases it sends its deliveries one after the other. ``due_at`` is the time before
    which nothing is sent, null while nothing is; ``attempts`` counts how often in a row nobody answered.
    """

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    url: Mapped[str]
    description: Mapped[str | None]
    event_types: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    managed_by: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=text("'active'"))
    secret_sealed: Mapped[bytes]
    previous_secret_sealed: Mapped[bytes | None]
    previous_secret_expires_at: Mapped[datetime | None]
    last_success_at: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    disabled_detail: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint(one_of("state", EndpointState), name="state"),
        CheckConstraint(one_of("managed_by", ManagedBy), name="managed_by"),
        CheckConstraint(f"disabled_reason IS NULL OR {one_of('disabled_reason', DisabledReason)}", name="reason"),
        CheckConstraint(
            "(state = 'disabled') = (disabled_reason IS NOT NULL)"
            " AND (disabled_reason IS NULL) = (disabled_at IS NULL)",
            name="disabled_has_reason",
        ),
        CheckConstraint("state NOT IN ('paused', 'disabled') OR due_at IS NULL", name="held_is_not_due"),
        CheckConstraint("state <> 'active' OR due_at IS NOT NULL", name="active_is_due"),
        CheckConstraint(
            "(previous_secret_sealed IS NULL) = (previous_secret_expires_at IS NULL)", name="previous_secret_expires"
        ),
        Index("ix_webhook_endpoints_workspace_id", "workspace_id", "id"),
        Index(
            "uq_webhook_endpoints_live_url",
            "workspace_id",
            "url",
            unique=True,
            postgresql_where=text("state <> 'deleted'"),
        ),
    )


class WebhookDelivery(Base):
    """One event on its way to one endpoint.

    ``attempts`` counts the tries, ``step`` the failed ones that moved it along the retry schedule. Position and change
    request are the event's, kept here because the order of delivery goes by them.
    """

    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(ForeignKey("events.id"))
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id"))
    event_position: Mapped[int]
    change_request_id: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default=text("'pending'"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    step: Mapped[int] = mapped_column(server_default=text("0"))
    due_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    delivered_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(one_of("state", DeliveryState), name="state"),
        CheckConstraint("(state = 'pending') = (due_at IS NOT NULL)", name="pending_is_due"),
        UniqueConstraint("event_id", "endpoint_id"),
        Index("ix_webhook_deliveries_endpoint_id", "endpoint_id", "id"),
        Index("ix_webhook_deliveries_due_at", "endpoint_id", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        Index(
            "ix_webhook_deliveries_order",
            "endpoint_id",
            "event_position",
            postgresql_where=text("due_at IS NOT NULL"),
        ),
        Index(
            "ix_webhook_deliveries_change_request_id",
            "endpoint_id",
            "change_request_id",
            "event_position",
            postgresql_where=text("due_at IS NOT NULL"),
        ),
    )


class WebhookAttempt(Base):
    """One try of a delivery: why it failed, if it did, and what the receiver answered (clipped and printable)."""

    __tablename__ = "webhook_attempts"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    delivery_id: Mapped[str] = mapped_column(ForeignKey("webhook_deliveries.id"))
    attempted_at: Mapped[datetime]
    duration_ms: Mapped[int]
    status: Mapped[int | None]
    fault: Mapped[str | None]
    detail: Mapped[str | None]

    __table_args__ = (
        CheckConstraint(f"fault IS NULL OR {one_of('fault', Fault)}", name="fault"),
        Index("ix_webhook_attempts_delivery_id", "delivery_id", "id"),
    )
