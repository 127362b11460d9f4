"""Webhook deliveries: what is due, what was tried, when to try again."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr
from sqlalchemy import func, select, update

from service.domain.errors import LeaseLost
from service.store.database import Database
from service.store.leases import Lease, due_again, given_back, held
from service.store.tables import Event, WebhookAttempt, WebhookDelivery, WebhookEndpoint
from service.store.workspaces import WEBHOOK_SECRET


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery with all that an attempt needs. ``body`` is the stored text whose bytes are signed and sent."""

    id: str
    event_id: str
    url: str
    secret: SecretStr
    body: bytes
    failed_attempts: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one try brought. ``status`` is ``None`` when no answer came; ``detail`` is clipped and printable."""

    at: datetime
    duration_ms: int
    status: int | None
    detail: str | None

    @property
    def succeeded(self) -> bool:
        """Only 2xx counts."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 - HTTP's own numbers


def load(database: Database, lease: Lease) -> Delivery:
    """The delivery under a lease.

    Raises:
        SealingError: the endpoint's secret does not open.
    """
    with database.transaction() as session:
        row, event, endpoint = session.execute(
            select(WebhookDelivery, Event, WebhookEndpoint)
            .join(Event, Event.id == WebhookDelivery.event_id)
            .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
            .where(WebhookDelivery.id == lease.row_id)
        ).one()
        secret = database.sealer.open(endpoint.secret_sealed, purpose=WEBHOOK_SECRET, row_id=endpoint.id)
        return Delivery(row.id, event.id, endpoint.url, secret, event.body.encode(), row.attempts)


def record(database: Database, lease: Lease, attempt: Attempt, retry_seconds: float | None) -> None:
    """Store an attempt; the delivery is done, due again after ``retry_seconds``, or failed when that is ``None``.

    Raises:
        LeaseLost: another worker took over; the attempt is kept, the delivery is theirs.
    """
    values: dict[str, object] = {"attempts": WebhookDelivery.attempts + 1}
    if attempt.succeeded:
        values |= {"state": "delivered", "delivered_at": attempt.at, **given_back(None)}
    elif retry_seconds is None:
        values |= {"state": "failed", **given_back(None)}
    else:
        values |= given_back(due_again(lease, retry_seconds))
    with database.transaction() as session:
        session.add(
            WebhookAttempt(
                delivery_id=str(lease.row_id),
                attempted_at=attempt.at,
                duration_ms=attempt.duration_ms,
                status=attempt.status,
                detail=attempt.detail,
            )
        )
        statement = update(WebhookDelivery).where(held(lease)).values(**values).returning(WebhookDelivery.id)
        lost = session.scalars(statement).one_or_none() is None
    if lost:
        raise LeaseLost("another worker holds this delivery")


def pending(database: Database, change_request_id: str) -> int:
    """How many deliveries of a change request's events are still pending."""
    with database.transaction() as session:
        return (
            session.scalar(
                select(func.count())
                .select_from(WebhookDelivery)
                .join(Event, Event.id == WebhookDelivery.event_id)
                .where(Event.change_request_id == change_request_id, WebhookDelivery.state == "pending")
            )
            or 0
        )
