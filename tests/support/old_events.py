"""Events that look old."""

from sqlalchemy import func, text, update

from service.domain.outcomes import Notice
from service.domain.states import State
from service.store import events
from service.store.database import Database
from service.store.tables import ChangeRequest, Event, WebhookDelivery
from tests.support import rows


def age(database: Database, days: float) -> None:
    """Make everything that is written look as old."""
    past = func.now() - text(f"interval '{days} days'")
    with database.transaction() as session:
        session.execute(update(ChangeRequest).values(updated_at=past))
        session.execute(update(Event).values(created_at=past))
        session.execute(update(WebhookDelivery).values(created_at=past))


def told(database: Database, workspace_id: str, state: State, number: int = 3) -> str:
    """A change request with events; its id."""
    request_id = rows.change_request(database, workspace_id, state)
    with database.transaction() as session:
        row = session.get_one(ChangeRequest, request_id)
        for _ in range(number):
            events.append(database, session, row, name=Notice.ALERT, now=rows.NOW)
    return request_id
