"""Events and their outbox rows, written in the transaction of what they tell about."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, literal, select
from sqlalchemy.orm import Session

from service.domain.reasons import ADVICE, Reason
from service.domain.snapshots import SafeTransactionKind
from service.domain.webhooks import WORKSPACE_ALERT, EndpointEvent, EndpointState, wants
from service.store.database import Database
from service.store.tables import ChangeRequest, Event, SafeTransaction, WebhookDelivery, WebhookEndpoint


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event with its place among all of them."""

    id: str
    position: int
    change_request_id: str | None


@dataclass(frozen=True, slots=True)
class _New:
    workspace_id: str
    type: str
    now: datetime
    data: Mapping[str, object]
    change_request_id: str | None = None
    seq: int | None = None
    state: str | None = None


def append(
    database: Database,
    session: Session,
    row: ChangeRequest,
    *,
    name: str,
    now: datetime,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Append ``change_request.<name>`` with the row's next sequence number, and a delivery per endpoint that wants it.

    The caller holds the row (it was just updated in this transaction), which keeps the numbers without gaps.
    """
    row.last_event_seq += 1
    event_type = f"change_request.{name}"
    data = {**_data(database, session, row), **(extra or {})}
    new = _New(row.workspace_id, event_type, now, data, row.id, row.last_event_seq, row.state)
    stored = _store(database, session, new)
    deliver(database, session, stored, endpoints_for(session, row.workspace_id, event_type))


def append_about_endpoint(
    database: Database,
    session: Session,
    workspace_id: str,
    event: EndpointEvent,
    *,
    now: datetime,
    data: Mapping[str, object],
) -> StoredEvent:
    """Append ``webhook_endpoint.<event>``; the caller says who gets it, see ``deliver``."""
    return _store(database, session, _New(workspace_id, f"webhook_endpoint.{event}", now, data))


def append_about_workspace(
    database: Database, session: Session, workspace_id: str, *, now: datetime, data: Mapping[str, object]
) -> None:
    """Append ``workspace.alert``, and a delivery per endpoint that wants it."""
    stored = _store(database, session, _New(workspace_id, WORKSPACE_ALERT, now, data))
    deliver(database, session, stored, endpoints_for(session, workspace_id, WORKSPACE_ALERT))


def endpoints_for(session: Session, workspace_id: str, event_type: str) -> list[str]:
    """Ids of the workspace's endpoints that want an event, locked against being deleted before it is theirs."""
    statement = (
        select(WebhookEndpoint.id, WebhookEndpoint.event_types)
        .where(
            WebhookEndpoint.workspace_id == workspace_id,
            WebhookEndpoint.state.in_([EndpointState.ACTIVE, EndpointState.PAUSED]),
        )
        .order_by(WebhookEndpoint.id)
        .with_for_update(read=True, key_share=True)
    )
    return [row.id for row in session.execute(statement) if wants(row.event_types, event_type)]


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


def _store(database: Database, session: Session, new: _New) -> StoredEvent:
    event_id = database.new_id("evt")
    body = {"type": new.type, "timestamp": new.now.isoformat(), "data": new.data}
    statement = insert(Event).values(
        id=event_id,
        workspace_id=new.workspace_id,
        change_request_id=new.change_request_id,
        seq=new.seq,
        type=new.type,
        state=new.state,
        body=json.dumps(body, separators=(",", ":"), ensure_ascii=False),
        created_at=new.now,
    )
    position = session.scalars(statement.returning(Event.position)).one()
    return StoredEvent(event_id, position, new.change_request_id)


def _data(database: Database, session: Session, row: ChangeRequest) -> dict[str, Any]:
    return {
        "id": row.id,
        "sequence": row.last_event_seq,
        "state": row.state,
        "title": row.title,
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
    if proposal_id is None:
        return None
    latest = session.scalars(
        select(SafeTransaction)
        .where(
            SafeTransaction.proposal_id == literal(proposal_id),
            SafeTransaction.kind == SafeTransactionKind.APPROVAL,
        )
        .order_by(SafeTransaction.position.desc())
        .limit(1)
    ).one_or_none()
    if latest is None:
        return None
    return {"safe": latest.safe, "nonce": latest.nonce, "safe_tx_hash": latest.safe_tx_hash}
