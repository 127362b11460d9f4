"""Webhook endpoints of the workspace file."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from pydantic import SecretStr
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.domain.webhooks import EndpointState, ManagedBy
from service.store.database import Database
from service.store.sealing import SealingError
from service.store.tables import WebhookEndpoint
from service.store.webhook_endpoints import (
    NewEndpoint,
    add,
    end,
    not_deleted,
    open_secret,
    replace_secret,
    resume,
    seal,
)

_OVERLAP: Final = timedelta(days=1)


def apply_file(
    database: Database, session: Session, workspace_id: str, webhooks: Sequence[tuple[str, SecretStr]]
) -> None:
    """Bring the endpoints of the workspace file in line with it.

    An endpoint is known by its URL. One that the file names is the file's from then on, whoever made it. One that it
    does not name any more gets no new events; what was written for it is still delivered.
    """
    statement = select(WebhookEndpoint).where(not_deleted(workspace_id)).order_by(WebhookEndpoint.id)
    found = {row.url: row for row in session.scalars(statement.with_for_update())}
    named = dict(webhooks)
    for url, secret in named.items():
        if url in found:
            _take_over(database, session, found[url], secret)
        else:
            add(database, session, workspace_id, NewEndpoint(url, secret), ManagedBy.FILE)
    for url, row in found.items():
        if url not in named and row.managed_by == ManagedBy.FILE:
            _retire(session, row)


def _take_over(database: Database, session: Session, row: WebhookEndpoint, secret: SecretStr) -> None:
    row.managed_by = ManagedBy.FILE
    if row.state == EndpointState.DISABLED:
        resume(row)
    try:
        changed = open_secret(database, row).get_secret_value() != secret.get_secret_value()
    except SealingError:
        row.secret_sealed = seal(database, row.id, secret)  # what was before is lost anyway
        return
    if changed:
        replace_secret(database, row, secret, session.scalars(select(func.now())).one() + _OVERLAP)


def _retire(session: Session, row: WebhookEndpoint) -> None:
    if row.due_at is None:
        end(session, row)
    else:
        row.state = EndpointState.DELETED
