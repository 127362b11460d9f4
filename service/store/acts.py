"""Acts on a workspace, in a chain of their own.

The end of the chain is locked last of all, so that two acts never wait for each other's other locks; deliveries of an
act need their endpoints locked before it.
"""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.domain.acts import Act
from service.domain.audit import GENESIS
from service.domain.webhooks import EndpointEvent
from service.store import events
from service.store.database import Database
from service.store.events import New, StoredEvent
from service.store.tables import ActChain


def append(
    database: Database,
    session: Session,
    workspace_id: str,
    act: Act,
    *,
    actor: Actor,
    data: Mapping[str, object],
) -> StoredEvent:
    """Append an act to the workspace's chain; the database says when it is."""
    now = session.scalars(select(func.clock_timestamp())).one()
    return _append(database, session, workspace_id, New(act.value, actor, now, data))


def append_about_endpoint(
    database: Database,
    session: Session,
    workspace_id: str,
    event: EndpointEvent,
    *,
    actor: Actor,
    now: datetime,
    data: Mapping[str, object],
) -> StoredEvent:
    """Append ``webhook_endpoint.<event>``; the caller says who gets it, see ``events.deliver``."""
    return _append(database, session, workspace_id, New(f"webhook_endpoint.{event}", actor, now, data))


def _append(database: Database, session: Session, workspace_id: str, new: New) -> StoredEvent:
    session.flush()
    first = insert(ActChain).values(workspace_id=workspace_id, last_seq=1, last_hash=GENESIS)
    following = first.on_conflict_do_update(
        index_elements=["workspace_id"], set_={"last_seq": ActChain.last_seq + 1}
    ).returning(ActChain.last_seq, ActChain.last_hash)
    end = session.execute(following).one()
    entry = events.new_entry(database, workspace_id, new, end.last_seq)
    values = events.columns_of(entry, end.last_hash)
    stored = events.store(session, values)
    session.execute(
        update(ActChain).where(ActChain.workspace_id == workspace_id).values(last_hash=values["hash"]),
        execution_options={"synchronize_session": False},
    )
    return stored
