"""Deleting old events and deliveries, a small batch at a time.

The events of a change request go whole, once it ended long ago, or not at all; acts on a workspace from the beginning
of their chain, up to the first that is kept: what is left of the audit log can be verified. What is still to be
delivered stays, and its event with it. How far the feed may have holes is kept in the workspace: a reader who comes too
late is told.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from itertools import takewhile
from typing import Final

from sqlalchemy import ColumnElement, delete, exists, func, select, text, true, tuple_, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.domain.workspaces import SHORTEST_RETENTION
from service.store.audit import allow_deletion
from service.store.database import Database
from service.store.feed import Place
from service.store.tables import (
    ActChain,
    ChangeRequest,
    Event,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    Workspace,
)

BATCH: Final = 500
"""Deliveries, or acts on one workspace, in one transaction."""
REQUESTS: Final = 20
"""Change requests whose events are deleted in one transaction."""
MOST_BATCHES: Final = 20
"""Of each kind in one run; the next run goes on."""

_DAY: Final = text("interval '1 day'")
_ANYWHERE: Final = timedelta(days=SHORTEST_RETENTION)
"""No workspace keeps less: what is younger is not even looked at."""
_PENDING: Final = exists().where(WebhookDelivery.event_id == Event.id, WebhookDelivery.due_at.is_not(None))
_LAST_ACT: Final = select(ActChain.last_seq).where(ActChain.workspace_id == Event.workspace_id).scalar_subquery()
_ACT_BUT_THE_LAST: Final = Event.change_request_id.is_(None) & (Event.seq.is_(None) | (Event.seq < _LAST_ACT))
"""Without the last of its acts, nobody could tell a chain that was deleted from one whose end was cut off."""


def forget(database: Database) -> int:
    """Delete what is older than its workspace keeps; how many deliveries and events.

    Any number of processes may do so at once: each takes rows that no other holds.
    """
    return sum(_run(database, batch) for batch in (_old_deliveries, _ended_requests, _first_acts))


def _run(database: Database, batch: Callable[[Session], int]) -> int:
    total = 0
    for _ in range(MOST_BATCHES):
        with database.transaction() as session:
            deleted = batch(session)
        total += deleted
        if not deleted:
            break
    return total


def _is_old(at: InstrumentedAttribute[object], days: InstrumentedAttribute[int | None]) -> ColumnElement[bool]:
    """Condition that a time is longer ago than a workspace keeps, which keeps for good where ``days`` is null."""
    return (at < func.now() - _ANYWHERE) & (at < func.now() - days * _DAY)


def _old_deliveries(session: Session) -> int:
    old = (
        select(WebhookDelivery.id)
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .join(Workspace, Workspace.id == WebhookEndpoint.workspace_id)
        .where(
            WebhookDelivery.due_at.is_(None),
            _is_old(WebhookDelivery.created_at, Workspace.delivery_retention_days),
        )
        .limit(BATCH)
        .with_for_update(of=WebhookDelivery, skip_locked=True)
    )
    return _delete_deliveries(session, session.scalars(old).all())


def _delete_deliveries(session: Session, ids: Collection[str]) -> int:
    if ids:
        session.execute(delete(WebhookAttempt).where(WebhookAttempt.delivery_id.in_(ids)))
        session.execute(delete(WebhookDelivery).where(WebhookDelivery.id.in_(ids)))
    return len(ids)


def _ended_requests(session: Session) -> int:
    """Requests that ended long ago and of whose events none is to be delivered; one that ended tells nothing more."""
    to_deliver = exists().where(Event.change_request_id == ChangeRequest.id, _PENDING)
    ended = (
        select(ChangeRequest.id)
        .join(Workspace, Workspace.id == ChangeRequest.workspace_id)
        .where(
            ChangeRequest.due_at.is_(None),
            ChangeRequest.events_deleted_at.is_(None),
            _is_old(ChangeRequest.updated_at, Workspace.event_retention_days),
            ~to_deliver,
        )
        .limit(REQUESTS)
        .with_for_update(of=ChangeRequest, skip_locked=True)
    )
    ids = session.scalars(ended).all()
    return delete_events_of(session, ids) if ids else 0


def delete_events_of(session: Session, request_ids: Collection[str]) -> int:
    """Delete all events of change requests that the caller has locked, whole; how many events.

    A request with an event that somebody just asked to be sent again is left as it is.
    """
    of_requests = Event.change_request_id.in_(request_ids)
    # Nobody makes a delivery for a locked event; what was made until now counts.
    session.execute(select(Event.id).where(of_requests).order_by(Event.position).with_for_update())
    kept = set(session.scalars(select(Event.change_request_id).where(of_requests, _PENDING)))
    gone = [request_id for request_id in request_ids if request_id not in kept]
    deleted = _delete_events(session, Event.change_request_id.in_(gone))
    done = update(ChangeRequest).where(ChangeRequest.id.in_(gone)).values(events_deleted_at=func.now())
    session.execute(done, execution_options={"synchronize_session": False})
    return deleted


def _first_acts(session: Session) -> int:
    """Acts on one workspace, in the order of their chain up to the first that is kept."""
    old = _is_old(Event.created_at, Workspace.event_retention_days)
    first = (
        select((old & ~_PENDING).label("goes"))
        .where(Event.workspace_id == Workspace.id, _ACT_BUT_THE_LAST)
        .order_by(Event.position)
        .limit(1)
        .lateral("first")
    )
    workspace_id = session.scalar(select(Workspace.id).join(first, true()).where(first.c.goes).limit(1))
    if workspace_id is None:
        return 0
    # Whoever deletes here at the same time waits, and so takes what follows: nobody leaves a gap.
    found = session.execute(
        select(Event.id, old.label("old"))
        .join(Workspace, Workspace.id == Event.workspace_id)
        .where(Event.workspace_id == workspace_id, _ACT_BUT_THE_LAST)
        .order_by(Event.position)
        .limit(BATCH)
        .with_for_update(of=Event)
    ).all()
    kept = set(session.scalars(select(Event.id).where(Event.id.in_([row.id for row in found]), _PENDING)))
    gone = [row.id for row in takewhile(lambda row: row.old and row.id not in kept, found)]
    return _delete_events(session, Event.id.in_(gone)) if gone else 0


def _delete_events(session: Session, which: ColumnElement[bool]) -> int:
    """Delete locked events with their deliveries, none of which is pending, and say so in the feed."""
    events = select(Event.id).where(which)
    deliveries = session.scalars(select(WebhookDelivery.id).where(WebhookDelivery.event_id.in_(events))).all()
    _delete_deliveries(session, deliveries)
    allow_deletion(session)
    gone = delete(Event).where(which).returning(Event.workspace_id, Event.transaction_id, Event.position)
    deleted = session.execute(gone, execution_options={"synchronize_session": False}).all()
    reached: dict[str, Place] = {}
    for row in deleted:
        place = Place(row.transaction_id, row.position)
        reached[row.workspace_id] = max(place, reached.get(row.workspace_id, place))
    _mark_feed(session, reached)
    return len(deleted)


def _mark_feed(session: Session, reached: Mapping[str, Place]) -> None:
    for workspace_id, place in sorted(reached.items()):  # in one order, whoever deletes at the same time
        before = tuple_(Workspace.forgotten_transaction_id, Workspace.forgotten_position)
        further = before < (place.transaction_id, place.position)
        session.execute(
            update(Workspace)
            .where(Workspace.id == workspace_id, further)
            .values(forgotten_transaction_id=place.transaction_id, forgotten_position=place.position)
        )
