"""What became of an endpoint's deliveries, and sending them again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from service.domain.actors import Actor
from service.domain.acts import Act
from service.domain.webhooks import DeliveryState, EndpointEvent, EndpointState
from service.store import events, feed, webhook_endpoints
from service.store.database import Database
from service.store.events import StoredEvent
from service.store.tables import Event, WebhookAttempt, WebhookDelivery, WebhookEndpoint
from service.store.webhook_endpoints import EndpointDisabled

MOST_REPLAYED: Final = 1000
SHOWN_ATTEMPTS: Final = 20
_NEVER_AGAIN: Final = (f"webhook_endpoint.{EndpointEvent.TEST}", *Act)


class UnknownEvent(Exception):
    """A bound of a range is no event of the workspace.

    Attributes:
        event_id: as it was given.
    """

    def __init__(self, event_id: str) -> None:
        super().__init__(event_id)
        self.event_id = event_id


@dataclass(frozen=True, slots=True)
class Shown:
    """A delivery with its event's type, and its newest attempts, oldest first."""

    delivery: WebhookDelivery
    event_type: str
    attempts: Sequence[WebhookAttempt] = ()


def listing(
    session: Session, endpoint_id: str, *, state: DeliveryState | None, before: str | None, limit: int
) -> list[Shown]:
    """Deliveries of an endpoint, newest first, those older than the id ``before``."""
    statement = (
        select(WebhookDelivery, Event.type)
        .join(Event, Event.id == WebhookDelivery.event_id)
        .where(WebhookDelivery.endpoint_id == endpoint_id)
    )
    if state is not None:
        statement = statement.where(WebhookDelivery.state == state)
    if before is not None:
        statement = statement.where(WebhookDelivery.id < before)
    rows = session.execute(statement.order_by(WebhookDelivery.id.desc()).limit(limit)).all()
    attempts = _attempts(session, [delivery.id for delivery, _ in rows])
    return [Shown(delivery, event_type, attempts.get(delivery.id, ())) for delivery, event_type in rows]


def _attempts(session: Session, delivery_ids: Sequence[str]) -> Mapping[str, Sequence[WebhookAttempt]]:
    number = func.row_number().over(partition_by=WebhookAttempt.delivery_id, order_by=WebhookAttempt.id.desc())
    numbered = select(WebhookAttempt, number.label("number")).where(WebhookAttempt.delivery_id.in_(delivery_ids))
    counted = numbered.subquery()
    newest = aliased(WebhookAttempt, counted)
    found: dict[str, list[WebhookAttempt]] = {}
    for attempt in session.scalars(select(newest).where(counted.c.number <= SHOWN_ATTEMPTS).order_by(newest.id)):
        found.setdefault(attempt.delivery_id, []).append(attempt)
    return found


def _served(session: Session, workspace_id: str, endpoint_id: str) -> WebhookEndpoint | None:
    row = webhook_endpoints.live(session, workspace_id, endpoint_id)
    if row is not None and row.state == EndpointState.DISABLED:
        raise EndpointDisabled
    return row


def resend(database: Database, workspace_id: str, endpoint_id: str, delivery_id: str, actor: Actor) -> Shown | None:
    """Make a delivery pending again, with the whole schedule before it; ``None`` if there is none.

    Raises:
        EndpointDeleted, EndpointDisabled: nothing is sent there.
    """
    with database.transaction() as session:
        endpoint = _served(session, workspace_id, endpoint_id)
        if endpoint is None:
            return None
        row = session.scalars(
            select(WebhookDelivery)
            .where(WebhookDelivery.id == delivery_id, WebhookDelivery.endpoint_id == endpoint_id)
            .with_for_update()
        ).one_or_none()
        if row is None:
            return None
        row.state, row.step, row.due_at, row.delivered_at = DeliveryState.PENDING, 0, func.now(), None
        session.flush()
        webhook_endpoints.note(
            database, session, endpoint, Act.DELIVERY_RESENT, actor, delivery_id=row.id, event_id=row.event_id
        )
        session.refresh(row)
        event_type = session.scalars(select(Event.type).where(Event.id == row.event_id)).one()
        return Shown(row, event_type, _attempts(session, [row.id]).get(row.id, ()))


Bound = datetime | str
"""A moment, or the id of an event."""


@dataclass(frozen=True, slots=True)
class Range:
    """Events to send again, from and to included.

    Attributes:
        until: ``None`` for the newest.
        undelivered_only: leave out those that the endpoint took.
    """

    since: Bound
    until: Bound | None
    undelivered_only: bool


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many deliveries were made pending, and the id of the first event that was too many, if any."""

    deliveries: int
    next_event: str | None


def replay(database: Database, workspace_id: str, endpoint_id: str, wanted: Range, actor: Actor) -> Replayed | None:
    """Send an endpoint the events of a range, at most ``MOST_REPLAYED``; ``None`` if there is no such endpoint.

    Events that its filter keeps out, tests, and acts on the workspace are left out.

    Raises:
        EndpointDeleted, EndpointDisabled: nothing is sent there.
        UnknownEvent: see there.
    """
    with database.transaction() as session:
        endpoint = _served(session, workspace_id, endpoint_id)
        if endpoint is None:
            return None
        statement = select(Event.id, Event.position, Event.change_request_id).where(
            Event.workspace_id == workspace_id,
            Event.type.not_in(_NEVER_AGAIN),
            feed.settled(),
            _from(session, workspace_id, wanted.since),
        )
        if wanted.until is not None:
            statement = statement.where(_to(session, workspace_id, wanted.until))
        if endpoint.event_types:
            statement = statement.where(feed.of_types(endpoint.event_types))
        if wanted.undelivered_only:
            taken = select(WebhookDelivery.event_id).where(
                WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.state == DeliveryState.DELIVERED
            )
            statement = statement.where(Event.id.not_in(taken))
        ordered = statement.order_by(Event.transaction_id, Event.position).limit(MOST_REPLAYED + 1)
        found = session.execute(ordered).all()
        page = found[:MOST_REPLAYED]
        if page:
            values = [events.delivery_of(database, StoredEvent(*row), endpoint_id) for row in page]
            again = {"state": DeliveryState.PENDING, "step": 0, "due_at": func.now(), "delivered_at": None}
            upsert = insert(WebhookDelivery).values(values)
            session.execute(upsert.on_conflict_do_update(index_elements=["event_id", "endpoint_id"], set_=again))
        bounds = {"since": str(wanted.since), "until": None if wanted.until is None else str(wanted.until)}
        webhook_endpoints.note(database, session, endpoint, Act.EVENTS_REPLAYED, actor, deliveries=len(page), **bounds)
        return Replayed(len(page), found[-1].id if len(found) > len(page) else None)


def _from(session: Session, workspace_id: str, bound: Bound) -> ColumnElement[bool]:
    if isinstance(bound, str):
        return feed.place() >= _place(session, workspace_id, bound)
    return Event.created_at >= bound


def _to(session: Session, workspace_id: str, bound: Bound) -> ColumnElement[bool]:
    if isinstance(bound, str):
        return feed.place() <= _place(session, workspace_id, bound)
    return Event.created_at <= bound


def _place(session: Session, workspace_id: str, event_id: str) -> tuple[int, int]:
    found = session.execute(
        select(Event.transaction_id, Event.position).where(Event.id == event_id, Event.workspace_id == workspace_id)
    ).one_or_none()
    if found is None:
        raise UnknownEvent(event_id)
    return (found.transaction_id, found.position)
