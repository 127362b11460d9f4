"""Events and their way out."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from service.store.columns import Base, Leased


class Event(Base):
    """What happened to a change request; append-only. ``body`` is the exact text that webhooks carry."""

    __tablename__ = "events"

    position: Mapped[int] = mapped_column(Identity(), primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    change_request_id: Mapped[str] = mapped_column(ForeignKey("change_requests.id"))
    seq: Mapped[int]
    type: Mapped[str]
    state: Mapped[str]
    body: Mapped[str]
    created_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("change_request_id", "seq"),
        Index("ix_events_workspace_id", "workspace_id", "position"),
    )


class WebhookEndpoint(Base):
    """Where a workspace wants its events."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    url: Mapped[str]
    secret_sealed: Mapped[bytes]
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (UniqueConstraint("workspace_id", "url"),)


class WebhookDelivery(Leased, Base):
    """One event on its way to one endpoint; ``attempts`` counts the tries."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(ForeignKey("events.id"))
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id"))
    state: Mapped[str] = mapped_column(server_default=text("'pending'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    delivered_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="state"),
        CheckConstraint("(state = 'pending') = (due_at IS NOT NULL)", name="pending_is_due"),
        UniqueConstraint("event_id", "endpoint_id"),
        Index("ix_webhook_deliveries_endpoint_id", "endpoint_id"),
        Index("ix_webhook_deliveries_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    )


class WebhookAttempt(Base):
    """One try of a delivery, and what the receiver answered (clipped)."""

    __tablename__ = "webhook_attempts"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    delivery_id: Mapped[str] = mapped_column(ForeignKey("webhook_deliveries.id"))
    attempted_at: Mapped[datetime]
    duration_ms: Mapped[int]
    status: Mapped[int | None]
    detail: Mapped[str | None]

    __table_args__ = (Index("ix_webhook_attempts_delivery_id", "delivery_id"),)
