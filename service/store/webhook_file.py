"""Webhook endpoints of the workspace file."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from pydantic import SecretStr
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.domain.acts import Act
from service.domain.webhooks import EndpointState, ManagedBy
from service.store.database import Database
from service.store.sealing import SealingError
from service.store.tables import WebhookEndpoint
from service.store.webhook_endpoints import (
    NewEndpoint,
    add,
    end,
    not_deleted,
    note,
    open_secret,
    replace_secret,
    resume,
    seal,
)

_OVERLAP: Final = timedelta(days=1)


def hold(session: Session, workspace_id: str) -> dict[str, WebhookEndpoint]:
    """The endpoints of a workspace by their URL, locked for ``apply_file``."""
    statement = select(WebhookEndpoint).where(not_deleted(workspace_id)).order_by(WebhookEndpoint.id)
    return {row.url: row for row in session.scalars(statement.with_for_update())}


def apply_file(
    database: Database,
    session: Session,
    workspace_id: str,
    found: Mapping[str, WebhookEndpoint],
    webhooks: Sequence[tuple[str, SecretStr]],
    actor: Actor,
) -> None:
    """Bring the endpoints of the workspace file in line with it.

    An endpoint is known by its URL. One that the file names is the file's from then on, whoever made it. One that it
    does not name any more gets no new events; what was written for it is still delivered.
    """
    named = dict(webhooks)
    for url, secret in named.items():
        if url in found:
            _take_over(database, session, found[url], secret, actor)
        else:
            add(database, session, workspace_id, NewEndpoint(url, secret), ManagedBy.FILE, actor)
    for url, row in found.items():
        if url not in named and row.managed_by == ManagedBy.FILE:
            _retire(session, row)
            note(database, session, row, Act.ENDPOINT_DELETED, actor)


def _take_over(database: Database, session: Session, row: WebhookEndpoint, secret: SecretStr, actor: Actor) -> None:
    changed = []
    if row.managed_by != ManagedBy.FILE:
        row.managed_by = ManagedBy.FILE
        changed.append("managed_by")
    if row.state == EndpointState.DISABLED:
        resume(row)
        changed.append("state")
    if changed:
        note(database, session, row, Act.ENDPOINT_UPDATED, actor, changed=changed, state=row.state)
    _sign_with(database, session, row, secret, actor)


def _sign_with(database: Database, session: Session, row: WebhookEndpoint, secret: SecretStr, actor: Actor) -> None:
    try:
        changed = open_secret(database, row).get_secret_value() != secret.get_secret_value()
    except SealingError:
        row.secret_sealed = seal(database, row.id, secret)  # what was before is lost anyway
        note(database, session, row, Act.ENDPOINT_SECRET_ROTATED, actor, overlap_ends_at=None)
        return
    if changed:
        until = session.scalars(select(func.now())).one() + _OVERLAP
        replace_secret(database, session, row, secret, until, actor)


def _retire(session: Session, row: WebhookEndpoint) -> None:
    if row.due_at is None:
        end(session, row)
    else:
        row.state = EndpointState.DELETED
