"""Rows of the real database in any state; a test names only the columns it is about."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr
from sqlalchemy import func, select, text, update

from service.domain.actors import Actor
from service.domain.api_keys import Scope, digest, hint
from service.domain.calls import approval_call, safe_tx_hash
from service.domain.chain import Block, ChainFact, FactKind
from service.domain.outcomes import Notice
from service.domain.reasons import Reason
from service.domain.snapshots import Intake, ProposalState, SafeTransactionKind, SafeTransactionState
from service.domain.states import TERMINAL, State
from service.store import leases, tokens, workspaces
from service.store.database import Database
from service.store.events import append
from service.store.leases import Lease, LeasedTable
from service.store.sealing import Sealer
from service.store.tables import ApiKey, ChangeRequest, Event, Proposal, SafeTransaction, WebhookDelivery

ACTOR = Actor.operator("tester", "test.example")
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CHAIN_ID = 31337
APP = "0x63F9725f107358c9115BC9d86c72dD5823E9B1E6"
OTHER_APP = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
SAFE = "0x41675C099F32341bf84BFc5382aF534df5C7461a"
OTHER_SAFE = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
COMPOSE_HASH = "0x" + "c0" * 32
OTHER_HASH = "0x" + "0e" * 32
DEVICE = "0x" + "de" * 32
OTHER_DEVICE = "0x" + "d0" * 32
PATCH = {"docker_compose_file": "services:\n  web:\n    image: nginx:1.29\n"}

_PREPARED = frozenset({State.PREPARED, State.PROPOSED, State.EXECUTED, State.REGISTERED})
_numbers = itertools.count(1)


def sealer(*key_ids: str) -> Sealer:
    """A sealer whose first key seals; the keys follow from their ids."""
    ids = key_ids or ("k1",)
    return Sealer({key_id: key_id.encode().ljust(32, b"-") for key_id in ids}, b"fingerprints".ljust(32, b"-"))


def workspace(database: Database, slug: str = "acme", **columns: Any) -> str:
    """A workspace with one registered Safe; its id."""
    values: dict[str, Any] = {
        "phala_base_url": "https://cloud.example/api/v1",
        "phala_api_key": SecretStr(f"phala-key-of-{slug}"),
        "safes": [(CHAIN_ID, SAFE)],
    }
    return workspaces.save(database, workspaces.WorkspaceSpec(slug=slug, **(values | columns)), ACTOR)


def api_key(database: Database, workspace_id: str, key: str, scope: Scope = Scope.ADMIN, **columns: Any) -> str:
    """A given API key; its id."""
    key_id = database.new_id("key")
    values = {"digest": digest(key), "hint": hint(key), "name": "test", "created_by": "command line"} | columns
    with database.transaction() as session:
        session.add(ApiKey(id=key_id, workspace_id=workspace_id, scope=scope.value, **values))
    return key_id


def change_request(database: Database, workspace_id: str, state: State = State.RECEIVED, **columns: Any) -> str:
    """A change request with what its state demands, due now while it lives; its id."""
    number = next(_numbers)
    request_id = database.new_id("cr")
    values: dict[str, Any] = {
        "state_entered_at": NOW,
        "intake": Intake.PATCH.value,
        "cvm_id": f"app-{number}",
        "patch": PATCH,
        "deadline_at": NOW + timedelta(days=30),
        "created_at": NOW,
        "updated_at": NOW,
        "due_at": None if state in TERMINAL else func.now(),
        "reason": Reason.INTERNAL_ERROR.value if state is State.FAILED else None,
    }
    if state is not State.RECEIVED:
        values |= {
            "vm_uuid": f"00000000-0000-4000-8000-{number:012}",
            "chain_id": CHAIN_ID,
            "app_contract": APP,
            "device_id": DEVICE,
            "compose_hash": COMPOSE_HASH,
        }
    if state in _PREPARED:
        token = SecretStr(f"token-{number}")
        values["commit_token_sealed"] = database.sealer.seal(token, purpose="commit_token", row_id=request_id)
        values["commit_token_fingerprint"] = database.sealer.fingerprint(token)
        values["token_expires_at"] = NOW + timedelta(days=14)
    if state in (State.EXECUTED, State.REGISTERED):
        values |= {"evidence_block_hash": "0x" + "b1" * 32, "evidence_block_number": 100}
    if state is State.COMMITTED:
        values |= {"commit_attempt_id": "attempt", "commit_attempted_at": NOW, "correlation_id": f"corr-{number}"}
    if state is State.PROPOSED and "proposal_id" not in columns:
        values["proposal_id"] = proposal(database, workspace_id, compose_hash=f"0x{number:064x}")
    with database.transaction() as session:
        row = ChangeRequest(id=request_id, workspace_id=workspace_id, state=state.value, **(values | columns))
        session.add(row)
        session.flush()
        if row.commit_token_fingerprint is not None:
            tokens.hold(session, request_id, row.commit_token_fingerprint)
    return request_id


def tell(database: Database, request_id: str, count: int = 1, **data: object) -> None:
    """Append alerts to a change request, each in a transaction of its own."""
    for _ in range(count):
        with database.transaction() as session:
            row = session.get_one(ChangeRequest, request_id, with_for_update=True)
            append(database, session, row, name=Notice.ALERT, actor=ACTOR, now=NOW, extra=data)


def proposal(database: Database, workspace_id: str, state: ProposalState = ProposalState.QUEUED, **columns: Any) -> str:
    """A proposal without a transaction, due now while it is served; its id."""
    proposal_id = database.new_id("prop")
    served = state in (ProposalState.POSTING, ProposalState.QUEUED, ProposalState.WITHDRAWING)
    values: dict[str, Any] = {
        "chain_id": CHAIN_ID,
        "app_contract": APP,
        "compose_hash": COMPOSE_HASH,
        "devices": [],
        "safe": None if state is ProposalState.EXTERNAL else SAFE,
        "due_at": func.now() if served else None,
    }
    with database.transaction() as session:
        session.add(Proposal(id=proposal_id, workspace_id=workspace_id, state=state.value, **(values | columns)))
    return proposal_id


def approval(
    database: Database,
    proposal_id: str,
    nonce: int = 0,
    state: SafeTransactionState = SafeTransactionState.QUEUED,
    **columns: Any,
) -> str:
    """The approval transaction of a proposal; its id."""
    transaction_id = database.new_id("stx")
    with database.transaction() as session:
        row = session.get_one(Proposal, proposal_id)
        safe = row.safe or SAFE
        call = approval_call(row.app_contract, row.compose_hash, tuple(row.devices))
        values: dict[str, Any] = {
            "kind": SafeTransactionKind.APPROVAL.value,
            "chain_id": row.chain_id,
            "safe": safe,
            "nonce": nonce,
            "to": call.to,
            "data": call.data,
            "operation": call.operation,
            "safe_tx_hash": safe_tx_hash(row.chain_id, safe, call, nonce),
        }
        session.add(
            SafeTransaction(
                **({"id": transaction_id, "proposal_id": proposal_id, "state": state.value} | values | columns)
            )
        )
    return transaction_id


def fact(
    block: int | Block = 100, kind: FactKind = FactKind.HASH_ADDED, value: str = COMPOSE_HASH, **fields: Any
) -> ChainFact:
    """A log of an app contract in a block whose hash follows from its number."""
    values: dict[str, Any] = {
        "app_contract": APP,
        "transaction_hash": "0x" + "aa" * 32,
        "block": block if isinstance(block, Block) else Block(block, f"0x{block:064x}"),
        "log_index": 0,
    }
    return ChainFact(kind=kind, value=value, **(values | fields))


def lease(database: Database, table: LeasedTable, row_id: str | int) -> Lease:
    """The lease of a due row."""
    taken = leases.acquire(database, table, row_id)
    assert taken is not None, "the row is not due, or held"
    return taken


def shift(database: Database, table: LeasedTable, row_id: str | int, **seconds: float | None) -> None:
    """Set timer columns of a row to that many seconds from the database's now; ``None`` clears them."""
    values = {
        column: None if offset is None else func.now() + text(f"interval '{offset} seconds'")
        for column, offset in seconds.items()
    }
    with database.transaction() as session:
        session.execute(update(table).where(leases.key_of(table) == row_id).values(**values))


def read(database: Database, table: type[Any], row_id: str | int) -> Any:
    """A row as it is now."""
    with database.transaction() as session:
        return session.get_one(table, row_id)


def due_in(database: Database, table: LeasedTable, row_id: str | int) -> float | None:
    """Seconds until a row is due, by the database's clock; ``None`` when it is not."""
    with database.transaction() as session:
        due = func.extract("epoch", table.due_at - func.clock_timestamp())
        seconds = session.scalar(select(due).where(leases.key_of(table) == row_id))
    return None if seconds is None else float(seconds)


def is_due(database: Database, table: LeasedTable, row_id: str | int) -> bool:
    """Whether a sweep would ring for a row now."""
    return row_id in [found for found, _ in leases.ring_due(database, table, 1000)]


def events(database: Database, request_id: str) -> list[Event]:
    """The events of a change request in order."""
    with database.transaction() as session:
        return list(session.scalars(select(Event).where(Event.change_request_id == request_id).order_by(Event.seq)))


def deliveries(database: Database) -> list[WebhookDelivery]:
    """All deliveries, oldest first."""
    with database.transaction() as session:
        return list(session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)))


def transactions(database: Database, proposal_id: str) -> list[SafeTransaction]:
    """The Safe transactions of a proposal by nonce."""
    with database.transaction() as session:
        query = select(SafeTransaction).where(SafeTransaction.proposal_id == proposal_id)
        return list(session.scalars(query.order_by(SafeTransaction.nonce, SafeTransaction.created_at)))
