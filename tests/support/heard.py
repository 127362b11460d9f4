"""Prepares that Phala Cloud tells of."""

import json
from datetime import datetime, timedelta
from typing import Any

from pydantic import SecretStr
from sqlalchemy import select

from sandbox.phala_cloud.webhooks import headers
from service.domain.phala_facts import Prepared
from service.domain.prepares import TOKEN_LIFETIME, HeardPrepare
from service.store import inbound
from service.store.database import Database
from service.store.inbound import Told
from service.store.tables import ChangeRequest, InboundEvent
from tests.support import rows

SECRET = "whsec_of-the-workspace-at-phala-cloud"
VM_UUID = "3f2b8c14-5a6d-4e7f-8a9b-0c1d2e3f4a5b"


def told(*, minted_at: datetime = rows.NOW, **fields: Any) -> Told:
    """A prepare of the CVM, of the update that rows are about."""
    token = fields.pop("token", "heard")
    event_id = fields.pop("event_id", f"evt_{token}")
    values = {"chain_id": rows.CHAIN_ID, "app_contract": rows.APP, "device_id": rows.DEVICE}
    values |= {"compose_hash": rows.COMPOSE_HASH, **fields}
    prepare = HeardPrepare(id="", token=SecretStr(token), expires_at=minted_at + TOKEN_LIFETIME, **values)
    return Told(event_id, VM_UUID, "my-agent", prepare)


def told_of(answer: Prepared, event_id: str, vm_uuid: str, *, name: str | None, at: datetime) -> Told:
    """What Phala Cloud tells of a prepare that it answered."""
    assert answer.chain_id is not None
    heard = HeardPrepare(
        id="",
        chain_id=answer.chain_id,
        app_contract=answer.app_contract,
        device_id=answer.device_id,
        compose_hash=answer.compose_hash,
        token=answer.commit_token,
        expires_at=at + TOKEN_LIFETIME,
    )
    return Told(event_id, vm_uuid, name, heard)


def hear(database: Database, workspace: str, *, at: datetime = rows.NOW, **fields: Any) -> None:
    """Hear of it."""
    inbound.hear(database, workspace, told(**fields), at)


def verdicts(database: Database) -> dict[str, str | None]:
    """What was decided, by the id of the event."""
    with database.transaction() as session:
        return {row.event_id: row.verdict for row in session.scalars(select(InboundEvent))}


def requests_of(database: Database) -> list[ChangeRequest]:
    """Change requests of the CVM, oldest first."""
    with database.transaction() as session:
        query = select(ChangeRequest).where(ChangeRequest.vm_uuid == VM_UUID).order_by(ChangeRequest.id)
        return list(session.scalars(query))


def webhook(
    *, at: datetime = rows.NOW, event: str = "cvm.update.pending_approval", secret: str = SECRET, **data: Any
) -> tuple[bytes, dict[str, str]]:
    """Body and headers as Phala Cloud sends them."""
    members: dict[str, Any] = {
        "cvm_id": VM_UUID,
        "cvm_name": "my-agent",
        "compose_hash": rows.COMPOSE_HASH,
        "app_id": rows.APP.lower(),
        "device_id": rows.DEVICE,
        "kms": {"chain_id": rows.CHAIN_ID, "contract_address": rows.OTHER_APP},
        "onchain_action": {"to": rows.APP.lower(), "method": "addComposeHash(bytes32)", "calldata": rows.COMPOSE_HASH},
        "commit_token": "7d3e9f52-0b1c-4a8d-9e6f-5a4b3c2d1e0f",
        "commit_url": "https://cloud.phala.com/acme/confirm-update?token=7d3e9f52-0b1c-4a8d-9e6f-5a4b3c2d1e0f",
        "api_commit_url": "https://cloud-api.phala.com/commit-update?token=7d3e9f52-0b1c-4a8d-9e6f-5a4b3c2d1e0f",
        "expires_at": (rows.NOW + timedelta(days=14)).isoformat(),
        "initiated_by": {"user_id": "u1", "username": "somebody"},
    }
    body = {
        "id": "evt_0123456789abcdef",
        "event": event,
        "version": "1",
        "created_at": rows.NOW.isoformat(),
        "workspace": {"id": "acme", "name": "Acme"},
        "data": members | data,
    }
    raw = json.dumps(body).encode()
    return raw, headers("evt_0123456789abcdef", event, secret, int(at.timestamp()), raw)
