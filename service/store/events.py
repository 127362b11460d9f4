"""Events and their outbox rows, written in the transaction of what they tell about.

They are the audit log as well: each has the hash of the one before it in its chain, see ``service.domain.audit``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, Select, Table, bindparam, func, insert, literal, or_, select, true, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from service.domain.actors import Actor
from service.domain.audit import GENESIS, Entry, with_hashes
from service.domain.reasons import ADVICE, Reason
from service.domain.snapshots import SafeTransactionKind
from service.domain.webhooks import EndpointState, wants
from service.store.audit_rows import unchained_hash
from service.store.columns import storable
from service.store.database import Database, Prepared, parameters_for, perform
from service.store.tables import ChangeRequest, Event, SafeTransaction, WebhookDelivery, WebhookEndpoint

LARGEST_METADATA: Final = 4000
"""Characters of metadata up to which events carry it."""
_EVENTS: Final = cast("Table", Event.__table__)
_REQUESTS: Final = cast("Table", ChangeRequest.__table__)
_WRITTEN: Final = [column.name for column in _EVENTS.c if column.identity is None and column.server_default is None]


def _live_endpoints(workspace_id: ColumnElement[str]) -> Select[str, list[str]]:
    return (
        select(WebhookEndpoint.id, WebhookEndpoint.event_types)
        .where(
            WebhookEndpoint.workspace_id == workspace_id,
            or_(WebhookEndpoint.state == EndpointState.ACTIVE, WebhookEndpoint.state == EndpointState.PAUSED),
        )
        .order_by(WebhookEndpoint.id)
        .with_for_update(read=True, key_share=True)
    )


def _append() -> Select[Any]:
    """The event, its number and hash in its change request's row, and the endpoints there are, by one statement."""
    values = parameters_for(_EVENTS, _WRITTEN)
    numbered = (
        update(_REQUESTS)
        .where(_REQUESTS.c.id == values["change_request_id"])
        .values(last_event_seq=values["seq"], last_chained_seq=values["seq"], last_event_hash=values["hash"])
        .cte("numbered")
    )
    new = insert(_EVENTS).values(**values).returning(_EVENTS.c.position).cte("new")
    live = _live_endpoints(values["workspace_id"]).subquery("live")
    found = select(new.c.position, live.c.id, live.c.event_types).select_from(new.outerjoin(live, true()))
    return found.add_cte(numbered)


_APPEND: Final = Prepared.of(_append())


@dataclass(frozen=True, slots=True)
class New:
    """What happened, by whom and when, as it is to be told."""

    type: str
    actor: Actor
    now: datetime
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event with its place among all of them."""

    id: str
    position: int
    change_request_id: str | None


def append(
    database: Database,
    session: Session,
    row: ChangeRequest,
    *,
    name: str,
    actor: Actor,
    now: datetime,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Append ``change_request.<name>`` with the row's next sequence number, and a delivery per endpoint that wants it.

    The caller holds the row (it was just updated in this transaction), which keeps numbers and hashes without gaps.
    """
    seq = row.last_event_seq + 1
    previous = _last_hash(session, row)
    data = {**_data(database, session, row, seq), **(extra or {})}
    new = New(f"change_request.{name}", actor, now, data)
    entry = new_entry(database, row.workspace_id, new, seq, of=(row.id, row.state))
    values = columns_of(entry, previous)
    rows = perform(session, _APPEND, values)
    for column, value in (("last_event_seq", seq), ("last_chained_seq", seq), ("last_event_hash", values["hash"])):
        set_committed_value(row, column, value)
    stored = StoredEvent(entry.id, rows[0][0], row.id)
    wanting = [endpoint for _, endpoint, types in rows if endpoint is not None and wants(types, new.type)]
    deliver(database, session, stored, wanting)


def _last_hash(session: Session, row: ChangeRequest) -> str:
    """The hash before the row's next event; that of what a version without hashes wrote is computed."""
    chained, known = row.last_chained_seq or 0, row.last_event_hash or GENESIS
    return known if chained == row.last_event_seq else unchained_hash(session, row.id, chained, known)


def new_entry(database: Database, workspace_id: str, new: New, seq: int, of: tuple[str, str] | None = None) -> Entry:
    """An event that is to be appended; ``of`` is the id and the state of its change request."""
    who = new.actor.as_json()
    body = {"type": new.type, "timestamp": new.now.isoformat(), "data": new.data, "actor": who}
    request_id, state = of or (None, None)
    return Entry(
        id=database.new_id("evt"),
        workspace_id=workspace_id,
        change_request_id=request_id,
        seq=seq,
        type=new.type,
        state=state,
        created_at=new.now,
        actor=who,
        origin=new.actor.origin,
        body=storable(json.dumps(body, separators=(",", ":"), ensure_ascii=False)),
    )


def columns_of(entry: Entry, previous: str) -> dict[str, Any]:
    """The columns of an event behind one of another hash."""
    own = entry.digest(previous)
    return {
        "id": entry.id,
        "workspace_id": entry.workspace_id,
        "change_request_id": entry.change_request_id,
        "seq": entry.seq,
        "type": entry.type,
        "state": entry.state,
        "body": with_hashes(entry.body, previous, own),
        "created_at": entry.created_at,
        "actor": entry.actor,
        "origin": entry.origin,
        "previous_hash": previous,
        "hash": own,
    }


def store(session: Session, values: Mapping[str, Any]) -> StoredEvent:
    """Store an event without looking for endpoints."""
    position = session.scalars(insert(_EVENTS).values(**values).returning(_EVENTS.c.position)).one()
    return StoredEvent(values["id"], position, values["change_request_id"])


def endpoints_for(session: Session, workspace_id: str, event_type: str) -> list[str]:
    """Ids of the workspace's endpoints that want an event, locked against being deleted before it is theirs."""
    live = session.execute(_live_endpoints(literal(workspace_id)))
    return [row.id for row in live if wants(row.event_types, event_type)]


def deliver(database: Database, session: Session, event: StoredEvent, endpoint_ids: Sequence[str]) -> list[str]:
    """One delivery of an event per endpoint, due now; their ids."""
    deliveries = [delivery_of(database, event, endpoint_id) for endpoint_id in endpoint_ids]
    if deliveries:
        session.execute(insert(WebhookDelivery).values(deliveries))
    return [str(delivery["id"]) for delivery in deliveries]


def delivery_of(database: Database, event: StoredEvent, endpoint_id: str) -> dict[str, Any]:
    """The columns of a delivery that is due now."""
    return {
        "id": database.new_id("dlv"),
        "event_id": event.id,
        "endpoint_id": endpoint_id,
        "event_position": event.position,
        "change_request_id": event.change_request_id,
        "due_at": func.now(),
    }


def _data(database: Database, session: Session, row: ChangeRequest, seq: int) -> dict[str, Any]:
    return {
        "id": row.id,
        "sequence": seq,
        "state": row.state,
        "title": row.title,
        "change_reason": row.change_reason,
        "change_links": row.change_links,
        "metadata": row.change_metadata if len(str(row.change_metadata)) <= LARGEST_METADATA else None,
        "retry_of": row.retry_of,
        "superseded_by": row.superseded_by,
        "cvm": {"id": row.cvm_id, "vm_uuid": row.vm_uuid, "name": row.cvm_name},
        "chain_id": row.chain_id,
        "app_contract": row.app_contract,
        "device_id": row.device_id,
        "compose_hash": row.compose_hash,
        "safe_transaction": _safe_transaction(session, row.proposal_id),
        "transaction_hash": row.transaction_hash,
        "correlation_id": row.correlation_id,
        "reason": reason_json(row.reason, row.detail),
        "links": {"self": f"{database.public_url}/v1/change-requests/{row.id}"},
    }


def reason_json(code: str | None, detail: str | None) -> dict[str, str | None] | None:
    """A reason as people and programs read it: code, advice, detail."""
    if code is None:
        return None
    return {"code": code, "advice": ADVICE[Reason(code)], "detail": detail}


def _safe_transaction(session: Session, proposal_id: str | None) -> dict[str, Any] | None:
    found = [] if proposal_id is None else perform(session, _NEWEST_APPROVAL, {"of_proposal": proposal_id})
    return dict(zip(("safe", "nonce", "safe_tx_hash"), found[0], strict=True)) if found else None


_NEWEST_APPROVAL: Final = Prepared.of(
    select(SafeTransaction.safe, SafeTransaction.nonce, SafeTransaction.safe_tx_hash)
    .where(
        SafeTransaction.proposal_id == bindparam("of_proposal"),
        SafeTransaction.kind == SafeTransactionKind.APPROVAL.value,
    )
    .order_by(SafeTransaction.position.desc())
    .limit(1)
)
