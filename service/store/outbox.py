"""Webhook deliveries: what is due, what was tried, when to try again.

An endpoint is leased, its deliveries are not: whoever holds it sends them one after the other. Locks are taken in one
order: the endpoint, then its deliveries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr
from sqlalchemy import ARRAY, ColumnElement, DateTime, Text, and_, case, exists, func, insert, literal, select, update
from sqlalchemy.orm import Session, aliased

from service.domain.deliveries import Attempt, Standing, follow
from service.domain.errors import LeaseLost
from service.domain.webhooks import HOLDING_STEPS, DeliveryState, Fault
from service.store import leases
from service.store.database import Database
from service.store.leases import Lease, given_back, held
from service.store.tables import Event, WebhookAttempt, WebhookDelivery, WebhookEndpoint
from service.store.webhook_endpoints import WEBHOOK_SECRET, disable


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery with all that an attempt needs. ``body`` is the stored text whose bytes are signed and sent."""

    id: str
    event_id: str
    change_request_id: str | None
    body: bytes
    step: int


@dataclass(frozen=True, slots=True)
class Batch:
    """The next deliveries of an endpoint, in order.

    Attributes:
        unanswered: how often in a row nobody answered there.
        sealed: the secrets that sign, the newest first.
    """

    endpoint_id: str
    url: str
    unanswered: int
    sealed: Sequence[bytes]
    deliveries: Sequence[Delivery]


@dataclass(frozen=True, slots=True)
class Result:
    """An attempt of a delivery; after a failed one it is due again after ``retry_seconds``, or failed if ``None``."""

    delivery_id: str
    attempt: Attempt
    retry_seconds: float | None


def ring_due(database: Database, limit: int) -> list[str]:
    """Endpoints with deliveries that are due, stamped as rung."""
    due = exists().where(WebhookDelivery.endpoint_id == WebhookEndpoint.id, WebhookDelivery.due_at <= func.now())
    return [endpoint_id for endpoint_id, _ in leases.ring_due(database, WebhookEndpoint, limit, due)]


def not_now(database: Database, endpoint_id: str) -> None:
    """Take a ring back that nobody could follow: the next sweep rings again."""
    with database.transaction() as session:
        session.execute(update(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id).values(rung_at=None))


def load(database: Database, lease: Lease, now: datetime, limit: int) -> Batch:
    """The deliveries of the leased endpoint that are due, oldest event first.

    Those of a change request whose earlier event failed are held back until that one is tried again, its first
    ``HOLDING_STEPS`` times.
    """
    with database.transaction() as session:
        endpoint = session.get_one(WebhookEndpoint, lease.row_id)
        earlier = aliased(WebhookDelivery)
        held_back = exists().where(
            earlier.endpoint_id == WebhookDelivery.endpoint_id,
            earlier.change_request_id == WebhookDelivery.change_request_id,
            earlier.event_position < WebhookDelivery.event_position,
            earlier.due_at > func.clock_timestamp(),
            earlier.step.between(1, HOLDING_STEPS),
        )
        rows = session.execute(
            select(WebhookDelivery.id, Event.id, WebhookDelivery.change_request_id, Event.body, WebhookDelivery.step)
            .join(Event, Event.id == WebhookDelivery.event_id)
            .where(
                WebhookDelivery.endpoint_id == lease.row_id,
                WebhookDelivery.due_at <= func.clock_timestamp(),
                ~held_back,
            )
            .order_by(WebhookDelivery.event_position)
            .limit(limit)
        )
        deliveries = [Delivery(id_, event_id, of, body.encode(), step) for id_, event_id, of, body, step in rows]
        sealed = [endpoint.secret_sealed]
        if endpoint.previous_secret_sealed and endpoint.previous_secret_expires_at > now:  # type: ignore[operator]
            sealed.append(endpoint.previous_secret_sealed)
        return Batch(endpoint.id, endpoint.url, endpoint.attempts, sealed, deliveries)


def secrets(database: Database, batch: Batch) -> list[SecretStr]:
    """The secrets that sign, opened.

    Raises:
        SealingError: one does not open.
    """
    return [database.sealer.open(sealed, purpose=WEBHOOK_SECRET, row_id=batch.endpoint_id) for sealed in batch.sealed]


def record(database: Database, lease: Lease, results: Sequence[Result], *, disable_seconds: float) -> bool:
    """Store attempts in the order in which they were made; whether the endpoint is still to be served.

    Raises:
        LeaseLost: another worker took over; the attempts are kept, the deliveries are theirs.
    """
    with database.transaction() as session:
        endpoint = session.scalars(
            select(WebhookEndpoint).where(held(lease)).with_for_update(key_share=True)
        ).one_or_none()
        session.execute(insert(WebhookAttempt), [_attempt(result) for result in results])
        if endpoint is not None:
            _apply(session, results)
            before = Standing(endpoint.failing_since, endpoint.last_success_at)
            attempts = [result.attempt for result in results]
            followed = follow(before, attempts, disable_seconds)
            endpoint.failing_since = followed.standing.failing_since
            endpoint.last_success_at = followed.standing.last_success_at
            if followed.is_back:
                _release(session, endpoint.id, before.last_success_at)
            if followed.disabled is not None:
                disable(database, session, endpoint, followed.disabled, attempts[-1].said, attempts[-1].at)
    if endpoint is None:
        raise LeaseLost("another worker holds this endpoint")
    return endpoint.due_at is not None


def _attempt(result: Result) -> dict[str, object]:
    attempt = result.attempt
    return {
        "delivery_id": result.delivery_id,
        "attempted_at": attempt.at,
        "duration_ms": attempt.duration_ms,
        "status": attempt.status,
        "fault": attempt.fault,
        "detail": attempt.detail,
    }


def _apply(session: Session, results: Sequence[Result]) -> None:
    """What became of the deliveries. A delivery that was dropped meanwhile stays so, unless it arrived."""
    tries: dict[str, object] = {"attempts": WebhookDelivery.attempts + 1}
    arrived = [(result.delivery_id, result.attempt.at) for result in results if result.attempt.succeeded]
    if arrived:
        ids, times = zip(*arrived, strict=True)
        arrays = (literal(list(ids), ARRAY(Text)), literal(list(times), ARRAY(DateTime(timezone=True))))
        done = func.unnest(*arrays).table_valued("id", "at", name="done").render_derived()
        delivered = {"state": DeliveryState.DELIVERED, "delivered_at": done.c.at, "due_at": None}
        _update(session, WebhookDelivery.id == done.c.id, tries | delivered)
    for result in results:
        if result.attempt.succeeded:
            continue
        steps = 0 if result.attempt.fault is Fault.SECRET_UNREADABLE else 1
        values = tries | {"step": WebhookDelivery.step + steps}
        if result.retry_seconds is None:
            values |= {"state": DeliveryState.FAILED, "due_at": None}
        else:
            values |= {"due_at": _in(result.retry_seconds)}
        still = and_(WebhookDelivery.id == result.delivery_id, WebhookDelivery.state == DeliveryState.PENDING)
        _update(session, still, values)


def _update(session: Session, condition: ColumnElement[bool], values: Mapping[str, object]) -> None:
    statement = update(WebhookDelivery).where(condition).values(**values)
    session.execute(statement, execution_options={"synchronize_session": False})


def _in(seconds: float) -> ColumnElement[datetime]:
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, literal(seconds))


def _release(session: Session, endpoint_id: str, last_success: datetime | None) -> None:
    """The receiver is back: what has waited since its last success goes out at once, without using up a step.

    What failed before that success failed by itself, and keeps its schedule.
    """
    since_then = [] if last_success is None else [Event.created_at > last_success]
    waiting = select(Event.id).where(Event.id == WebhookDelivery.event_id, *since_then).exists()
    later = and_(WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.due_at > func.clock_timestamp(), waiting)
    sooner = {"due_at": func.clock_timestamp(), "step": func.greatest(WebhookDelivery.step - 1, 0)}
    _update(session, later, sooner)


def give_back(database: Database, lease: Lease, hold_seconds: float, *, unanswered: bool) -> None:
    """End the lease; nothing is sent for ``hold_seconds``. ``unanswered`` says that nobody was there.

    An endpoint that was paused or disabled meanwhile stays so. A lease that is lost is nobody's to give back.
    """
    due_at = case((WebhookEndpoint.due_at.is_(None), None), else_=_in(hold_seconds))
    attempts = WebhookEndpoint.attempts + 1 if unanswered else 0
    with database.transaction() as session:
        session.execute(update(WebhookEndpoint).where(held(lease)).values(attempts=attempts, **given_back(due_at)))


def pending(database: Database, change_request_id: str) -> int:
    """How many deliveries of a change request's events are still pending."""
    with database.transaction() as session:
        return (
            session.scalar(
                select(func.count())
                .select_from(WebhookDelivery)
                .where(
                    WebhookDelivery.change_request_id == change_request_id,
                    WebhookDelivery.state == DeliveryState.PENDING,
                )
            )
            or 0
        )
