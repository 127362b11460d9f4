"""Events and their outbox rows, written in the transaction of what they tell about."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, literal, select
from sqlalchemy.orm import Session

from service.domain.reasons import ADVICE, Reason
from service.domain.snapshots import SafeTransactionKind
from service.store.database import Database
from service.store.tables import ChangeRequest, Event, SafeTransaction, WebhookDelivery, WebhookEndpoint


def append(
    database: Database,
    session: Session,
    row: ChangeRequest,
    *,
    name: str,
    now: datetime,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Append ``change_request.<name>`` with the row's next sequence number, and one delivery per enabled endpoint.

    The caller holds the row (it was just updated in this transaction), which keeps the numbers without gaps.
    """
    row.last_event_seq += 1
    event_id = database.new_id("evt")
    event_type = f"change_request.{name}"
    body = {
        "type": event_type,
        "timestamp": now.isoformat(),
        "data": {**_data(database, session, row), **(extra or {})},
    }
    event = Event(
        id=event_id,
        workspace_id=row.workspace_id,
        change_request_id=row.id,
        seq=row.last_event_seq,
        type=event_type,
        state=row.state,
        body=json.dumps(body, separators=(",", ":"), ensure_ascii=False),
        created_at=now,
    )
    session.add(event)
    session.flush()
    endpoints = select(WebhookEndpoint.id).where(
        WebhookEndpoint.workspace_id == row.workspace_id, WebhookEndpoint.enabled
    )
    for endpoint_id in session.scalars(endpoints):
        session.execute(
            insert(WebhookDelivery).values(
                id=database.new_id("dlv"), event_id=event_id, endpoint_id=endpoint_id, due_at=func.now()
            )
        )


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
