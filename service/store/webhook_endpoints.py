"""Webhook endpoints: made, changed, rotated, disabled, deleted.

Whoever deletes one locks its row against the key share lock of those who write deliveries for it, so that none is left
behind. Locks are taken in one order: the endpoint, then its deliveries, the chain of acts last. Those who create are
counted one by one.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import SecretStr
from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.domain.acts import Act
from service.domain.webhooks import (
    DISABLED_ADVICE,
    DeliveryState,
    DisabledReason,
    EndpointEvent,
    EndpointState,
    ManagedBy,
)
from service.store import acts, events
from service.store.database import Database
from service.store.locks import lock_name
from service.store.tables import WebhookDelivery, WebhookEndpoint

WEBHOOK_SECRET: Final = "webhook_secret"  # noqa: S105 - the name of a column
MOST_ENDPOINTS: Final = 50
_DELIVERING: Final = "deliver"
_LIVE_URL: Final = "uq_webhook_endpoints_live_url"


class UrlTaken(Exception):
    """Another endpoint of the workspace has this URL."""


class TooManyEndpoints(Exception):
    """The workspace has as many endpoints as it may."""


class EndpointDeleted(Exception):
    """The endpoint was deleted; its history is all that is left."""


class ManagedByFile(Exception):
    """The workspace file says what this endpoint is."""


class EndpointDisabled(Exception):
    """Nothing is sent to a disabled endpoint."""


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """What an endpoint is to be. ``event_types`` are types and prefixes, none for all."""

    url: str
    secret: SecretStr
    description: str | None = None
    event_types: Sequence[str] = ()


def create(database: Database, workspace_id: str, new: NewEndpoint, actor: Actor) -> WebhookEndpoint:
    """Store an endpoint of the API.

    Raises:
        UrlTaken, TooManyEndpoints: see there.
    """
    with _url_free(), database.transaction() as session:
        lock_name(session, f"webhook endpoints:{workspace_id}")
        if session.scalars(select(func.count()).where(not_deleted(workspace_id))).one() >= MOST_ENDPOINTS:
            raise TooManyEndpoints
        return add(database, session, workspace_id, new, ManagedBy.API, actor)


@contextmanager
def _url_free() -> Iterator[None]:
    """Turn the index's no to a second endpoint of a URL into ``UrlTaken``."""
    try:
        yield
    except IntegrityError as error:
        if _LIVE_URL not in str(error.orig):
            raise
        raise UrlTaken from error


def add(
    database: Database, session: Session, workspace_id: str, new: NewEndpoint, managed_by: ManagedBy, actor: Actor
) -> WebhookEndpoint:
    """Store an endpoint; the caller holds what else there must be room for."""
    endpoint_id = database.new_id("ep")
    row = WebhookEndpoint(
        id=endpoint_id,
        workspace_id=workspace_id,
        url=new.url,
        description=new.description,
        event_types=list(new.event_types),
        managed_by=managed_by,
        secret_sealed=seal(database, endpoint_id, new.secret),
        due_at=func.now(),
    )
    session.add(row)
    session.flush()
    note(database, session, row, Act.ENDPOINT_CREATED, actor, event_types=row.event_types)
    session.refresh(row)
    return row


def note(database: Database, session: Session, row: WebhookEndpoint, act: Act, actor: Actor, **more: object) -> None:
    """Write down what was done to an endpoint that the caller holds."""
    data = {"webhook_endpoint": about(database, row), **more}
    acts.append(database, session, row.workspace_id, act, actor=actor, data=data)


def seal(database: Database, endpoint_id: str, secret: SecretStr) -> bytes:
    """A secret as its column holds it."""
    return database.sealer.seal(secret, purpose=WEBHOOK_SECRET, row_id=endpoint_id)


def open_secret(database: Database, row: WebhookEndpoint) -> SecretStr:
    """The secret that signs.

    Raises:
        SealingError: it does not open.
    """
    return database.sealer.open(row.secret_sealed, purpose=WEBHOOK_SECRET, row_id=row.id)


def not_deleted(workspace_id: str) -> ColumnElement[bool]:
    """Condition that an endpoint is the workspace's, and there."""
    return and_(WebhookEndpoint.workspace_id == workspace_id, WebhookEndpoint.state != EndpointState.DELETED)


def get(session: Session, workspace_id: str, endpoint_id: str) -> WebhookEndpoint | None:
    """An endpoint of the workspace, deleted ones too."""
    return session.scalars(_one(workspace_id, endpoint_id)).one_or_none()


def _one(workspace_id: str, endpoint_id: str) -> Any:  # noqa: ANN401 - a statement
    return select(WebhookEndpoint).where(
        WebhookEndpoint.id == endpoint_id, WebhookEndpoint.workspace_id == workspace_id
    )


def listing(session: Session, workspace_id: str) -> Sequence[WebhookEndpoint]:
    """The endpoints of a workspace that are not deleted, oldest first."""
    return session.scalars(select(WebhookEndpoint).where(not_deleted(workspace_id)).order_by(WebhookEndpoint.id)).all()


def live(session: Session, workspace_id: str, endpoint_id: str) -> WebhookEndpoint | None:
    """An endpoint, locked for a change.

    Raises:
        EndpointDeleted: see there.
    """
    row: WebhookEndpoint | None = session.scalars(
        _one(workspace_id, endpoint_id).with_for_update(key_share=True)
    ).one_or_none()
    if row is not None and row.state == EndpointState.DELETED:
        raise EndpointDeleted
    return row


def change(
    database: Database,
    workspace_id: str,
    endpoint_id: str,
    values: Mapping[str, Any],
    *,
    actor: Actor,
    paused: bool | None = None,
) -> WebhookEndpoint | None:
    """Change an endpoint; ``None`` if there is none.

    Args:
        database: where.
        workspace_id: whose.
        endpoint_id: which.
        values: of ``url``, ``description`` and ``event_types`` those that change.
        actor: who changes it.
        paused: hold what is to be sent, or let it go; the latter also puts a disabled endpoint back to work.

    Raises:
        EndpointDeleted, ManagedByFile, UrlTaken: see there.
    """
    with _url_free(), database.transaction() as session:
        row = live(session, workspace_id, endpoint_id)
        if row is None:
            return None
        if values and row.managed_by == ManagedBy.FILE:
            raise ManagedByFile
        if values.get("url", row.url) != row.url:
            row.failing_since, row.attempts = None, 0
        changed = sorted(name for name, value in values.items() if getattr(row, name) != value)
        for name, value in values.items():
            setattr(row, name, value)
        before = row.state
        if paused is False and row.state != EndpointState.ACTIVE:
            resume(row)
        elif paused is True and row.state == EndpointState.ACTIVE:
            row.state, row.due_at = EndpointState.PAUSED, None
        if row.state != before:
            changed.append("state")
        row.updated_at = func.now()
        session.flush()
        if changed:
            note(database, session, row, Act.ENDPOINT_UPDATED, actor, changed=changed, state=row.state)
        session.refresh(row)
        return row


def resume(row: WebhookEndpoint) -> None:
    """Send to an endpoint again that was paused or disabled."""
    row.state, row.due_at, row.attempts, row.failing_since = EndpointState.ACTIVE, func.now(), 0, None
    row.disabled_at = row.disabled_reason = row.disabled_detail = None


def delete(database: Database, workspace_id: str, endpoint_id: str, actor: Actor) -> WebhookEndpoint | None:
    """Delete an endpoint: its secret is erased, what was not delivered is dropped, its history stays readable.

    Deleting it again changes nothing. ``None`` if there is none.

    Raises:
        ManagedByFile: see there.
    """
    with database.transaction() as session:
        row: WebhookEndpoint | None = session.scalars(_one(workspace_id, endpoint_id).with_for_update()).one_or_none()
        if row is None or row.state == EndpointState.DELETED:
            return row
        if row.managed_by == ManagedBy.FILE:
            raise ManagedByFile
        row.secret_sealed = b""
        end(session, row)
        note(database, session, row, Act.ENDPOINT_DELETED, actor)
        session.refresh(row)
        return row


def end(session: Session, row: WebhookEndpoint) -> None:
    """Make a locked endpoint a deleted one, and drop what was not delivered."""
    row.state, row.due_at, row.failing_since = EndpointState.DELETED, None, None
    row.disabled_at = row.disabled_reason = row.disabled_detail = None
    row.previous_secret_sealed = row.previous_secret_expires_at = None
    row.updated_at = func.now()
    session.flush()
    drop_pending(session, row.id)


def drop_pending(session: Session, endpoint_id: str) -> None:
    """Deliveries that will not be made; the caller holds the endpoint."""
    statement = (
        update(WebhookDelivery)
        .where(WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.due_at.is_not(None))
        .values(state=DeliveryState.DROPPED, due_at=None)
    )
    session.execute(statement, execution_options={"synchronize_session": False})


def rotate(
    database: Database, workspace_id: str, endpoint_id: str, secret: SecretStr, *, until: datetime, actor: Actor
) -> WebhookEndpoint | None:
    """Give an endpoint another secret; the one before signs beside it ``until`` then. ``None`` if there is none.

    Raises:
        EndpointDeleted, ManagedByFile: see there.
    """
    with database.transaction() as session:
        row = live(session, workspace_id, endpoint_id)
        if row is None:
            return None
        if row.managed_by == ManagedBy.FILE:
            raise ManagedByFile
        replace_secret(database, session, row, secret, until, actor)
        session.refresh(row)
        return row


def replace_secret(
    database: Database, session: Session, row: WebhookEndpoint, secret: SecretStr, until: datetime, actor: Actor
) -> None:
    """Sign with another secret; the one before signs beside it until then."""
    row.previous_secret_sealed, row.previous_secret_expires_at = row.secret_sealed, until
    row.secret_sealed = seal(database, row.id, secret)
    row.updated_at = func.now()
    session.flush()
    note(database, session, row, Act.ENDPOINT_SECRET_ROTATED, actor, overlap_ends_at=until.isoformat())


def send_test(
    database: Database, workspace_id: str, endpoint_id: str, now: datetime, actor: Actor
) -> WebhookDelivery | None:
    """Write a test event for an endpoint, whatever it filters; its delivery. ``None`` if there is none.

    Raises:
        EndpointDeleted, EndpointDisabled: see there.
    """
    with database.transaction() as session:
        row = live(session, workspace_id, endpoint_id)
        if row is None:
            return None
        if row.state == EndpointState.DISABLED:
            raise EndpointDisabled
        data = {"webhook_endpoint": about(database, row), "message": "A test: nothing happened."}
        kind = EndpointEvent.TEST
        event = acts.append_about_endpoint(database, session, workspace_id, kind, actor=actor, now=now, data=data)
        (delivery_id,) = events.deliver(database, session, event, [row.id])
        return session.get_one(WebhookDelivery, delivery_id)


def about(database: Database, row: WebhookEndpoint) -> dict[str, object]:
    """An endpoint as events show it: others read them, and paths of URLs may hold credentials."""
    return {
        "id": row.id,
        "host": urlsplit(row.url).hostname,
        "description": row.description,
        "links": {"self": f"{database.public_url}/v1/webhook-endpoints/{row.id}"},
    }


def disable(
    database: Database, session: Session, row: WebhookEndpoint, reason: DisabledReason, detail: str, now: datetime
) -> None:
    """Stop sending to an endpoint that the caller holds, drop what is pending, and tell the workspace's others."""
    drop_pending(session, row.id)
    row.due_at = None
    if row.state != EndpointState.ACTIVE:
        return
    since = row.failing_since
    row.state, row.disabled_at, row.disabled_reason, row.disabled_detail = EndpointState.DISABLED, now, reason, detail
    session.flush()
    data = {
        "webhook_endpoint": about(database, row),
        "reason": {"code": reason.value, "advice": DISABLED_ADVICE[reason], "detail": detail},
        "failing_since": since.isoformat() if since else None,
    }
    kind = EndpointEvent.DISABLED
    others = events.endpoints_for(session, row.workspace_id, f"webhook_endpoint.{kind}")
    actor = Actor.system(_DELIVERING)
    event = acts.append_about_endpoint(database, session, row.workspace_id, kind, actor=actor, now=now, data=data)
    events.deliver(database, session, event, others)
