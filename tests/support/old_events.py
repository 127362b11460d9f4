"""Events that look old."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import func, select, text, update

from service.domain.states import State
from service.store import events
from service.store.audit_rows import link_of
from service.store.database import Database
from service.store.tables import ActChain, ChangeRequest, Event, WebhookDelivery
from tests.support import rows


def age(database: Database, days: float) -> None:
    """Make everything that is written look as old, and its chains as if they had been written then."""
    past = func.now() - text(f"interval '{days} days'")
    with database.transaction() as session:
        session.execute(text("ALTER TABLE events DISABLE TRIGGER USER"))
        session.execute(update(ChangeRequest).values(updated_at=past))
        session.execute(update(WebhookDelivery).values(created_at=past))
        moment = session.scalars(select(past)).one()
        ends: dict[str, str | None] = {}
        for event in session.scalars(select(Event).order_by(Event.position)):
            name = event.change_request_id or event.workspace_id
            ends[name] = _written_then(event, moment, ends.get(name, event.previous_hash))
        session.flush()
        for name, end in ends.items():
            session.execute(update(ChangeRequest).where(ChangeRequest.id == name).values(last_event_hash=end))
            session.execute(update(ActChain).where(ActChain.workspace_id == name).values(last_hash=end))
        session.execute(text("ALTER TABLE events ENABLE TRIGGER USER"))


def _written_then(event: Event, moment: datetime, previous: str | None) -> str | None:
    """Give an event its time and the hashes it would have had; its own."""
    assert event.seq is not None
    assert previous is not None
    entry = replace(link_of(event, event.seq).entry, created_at=moment)
    for name, value in events.columns_of(entry, previous).items():
        setattr(event, name, value)
    return event.hash


def told(database: Database, workspace_id: str, state: State, number: int = 3) -> str:
    """A change request with events; its id."""
    request_id = rows.change_request(database, workspace_id, state)
    rows.tell(database, request_id, number)
    return request_id
