"""Sealing secrets again with the first key, row by row: it may be interrupted and run again at any time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import InstrumentedAttribute

from service.domain.actors import Actor
from service.domain.acts import Act
from service.store import acts
from service.store.database import Database
from service.store.idempotency import ANSWER, ANSWER_ID
from service.store.inbound import HEARD_TOKEN
from service.store.sealing import Sealer, SealingError
from service.store.tables import ChangeRequest, IdempotentAnswer, InboundEvent, WebhookEndpoint, Workspace
from service.store.tokens import TOKEN
from service.store.webhook_endpoints import WEBHOOK_SECRET
from service.store.workspace_changes import PHALA_KEY, PHALA_SECRET

_BATCH = 100

SealedColumn = InstrumentedAttribute[Any]
RowId = InstrumentedAttribute[str] | ColumnElement[str]
SEALED_COLUMNS: Final[tuple[tuple[str, RowId, SealedColumn], ...]] = (
    (PHALA_KEY, Workspace.id, Workspace.phala_api_key_sealed),
    (PHALA_SECRET, Workspace.id, Workspace.phala_webhook_secrets_sealed),
    (WEBHOOK_SECRET, WebhookEndpoint.id, WebhookEndpoint.secret_sealed),
    (WEBHOOK_SECRET, WebhookEndpoint.id, WebhookEndpoint.previous_secret_sealed),
    (HEARD_TOKEN, InboundEvent.id, InboundEvent.token_sealed),
    (TOKEN, ChangeRequest.id, ChangeRequest.commit_token_sealed),
    (ANSWER, ANSWER_ID, IdempotentAnswer.answer_sealed),
)
"""Every sealed column: what it was sealed for, the id of its row, itself. A test holds this against the tables."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What was done of one column: values sealed again, and the faults of those that did not open."""

    column: str
    sealed: int
    faults: tuple[str, ...]


def rotate(database: Database) -> Iterator[Progress]:
    """Seal again what another than the first key sealed; says after each batch how far it is.

    A value that does not open is left as it is and named. A value that changed meanwhile is left to the next run.
    """
    for purpose, row_id, column in SEALED_COLUMNS:
        sealed, after = 0, ""
        faults: tuple[str, ...] = ()
        while True:
            done, found, after = _batch(database, purpose, row_id, column, after)
            sealed, faults = sealed + done, faults + found
            yield Progress(f"{column.class_.__tablename__}.{column.key}", sealed, faults)
            if not after:
                break


def tell(database: Database, actor: Actor, *, unreadable: int) -> None:
    """Append to every workspace's acts that its secrets were sealed again, and by which key.

    Args:
        database: where.
        actor: who did it.
        unreadable: how many secrets, of all workspaces, did not open and stay as they were.
    """
    key_id = database.sealer.active_prefix.partition(b"\0")[0].decode()
    with database.transaction() as session:
        for workspace_id in session.scalars(select(Workspace.id).order_by(Workspace.id)).all():
            data = {"key_id": key_id, "unreadable": unreadable}
            acts.append(database, session, workspace_id, Act.SECRETS_ROTATED, actor=actor, data=data)


def _batch(
    database: Database, purpose: str, row_id: RowId, column: SealedColumn, after: str
) -> tuple[int, tuple[str, ...], str]:
    """Rows sealed again, faults, and the last row looked at; empty when there is no more."""
    with database.transaction() as session:
        held = select(row_id, column).where(row_id > after, column.is_not(None))
        rows = session.execute(held.order_by(row_id).limit(_BATCH)).all()
        done, faults = 0, []
        for identity, old in rows:
            try:
                new = _again(database.sealer, old, purpose, identity)
            except SealingError as error:
                faults.append(str(error))
                continue
            if new == old:
                continue
            # Only where it is still the value that was opened: a token spent or renewed meanwhile stays so.
            changed = session.execute(
                update(column.class_).where(row_id == identity, column == old).values({column: new}).returning(row_id)
            )
            done += len(changed.all())
    return done, tuple(faults), rows[-1][0] if rows else ""


def _again(sealer: Sealer, old: bytes | list[bytes], purpose: str, row_id: str) -> bytes | list[bytes]:
    """A value or a list of values, sealed by the first key; what is so already, or empty, stays as it is."""

    def one(value: bytes) -> bytes:
        if not value or value.startswith(sealer.active_prefix):
            return value
        return sealer.seal(sealer.open(value, purpose=purpose, row_id=row_id), purpose=purpose, row_id=row_id)

    return [one(value) for value in old] if isinstance(old, list) else one(old)
