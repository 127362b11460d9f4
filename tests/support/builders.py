"""Snapshots with sensible values; a test names only what it is about."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from service.domain.calls import SafeCall, approval_call, rejection_call, safe_tx_hash
from service.domain.chain import Block, ChainFact, FactKind
from service.domain.snapshots import (
    ChangeRequest,
    Intake,
    Proposal,
    ProposalState,
    SafeTransaction,
    SafeTransactionKind,
    SafeTransactionState,
    WorkspacePolicy,
)
from service.domain.states import State

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CHAIN_ID = 31337
VM_UUID = "0b2ff3a6-6a5c-4f0e-9d5c-3a1f0d6b7c11"
APP = "0x63F9725f107358c9115BC9d86c72dD5823E9B1E6"
SAFE = "0x41675C099F32341bf84BFc5382aF534df5C7461a"
SINGLETON = "0x29fcB43b46531BcA003ddC8FCB67FFE91900C762"
COMPOSE_HASH = "0x" + "c0" * 32
OTHER_HASH = "0x" + "0e" * 32
DEVICE = "0x" + "de" * 32
TOKEN = "5e3a2a35-2f0d-4d1c-9a55-6ad6a0cf9d10"
PATCH = {"docker_compose_file": "services:\n  web:\n    image: nginx:1.29\n"}


def workspace(**overrides: Any) -> WorkspacePolicy:
    values = WorkspacePolicy(
        id="ws_1",
        allow_without_approval=False,
        run_deadline_seconds=3600,
        safes=frozenset({(CHAIN_ID, SAFE)}),
        external_apps=frozenset(),
    )
    return replace(values, **overrides)


def change_request(state: State = State.RECEIVED, **overrides: Any) -> ChangeRequest:
    """A change request by patch, with the columns its state demands."""
    values = ChangeRequest(
        id="cr_1",
        workspace=workspace(),
        state=state,
        state_entered_at=NOW,
        intake=Intake.PATCH,
        cvm_id="my-app",
        patch=PATCH,
        allow_without_approval=False,
        vm_uuid=None,
        chain_id=None,
        app_contract=None,
        device_id=None,
        compose_hash=None,
        commit_token=None,
        token_expires_at=None,
        prepare_attempted_at=None,
        prepared_at=None,
        refresh_requested_at=None,
        refresh_attempted_at=None,
        refresh_due_at=None,
        refresh_attempts=0,
        token_told=None,
        deadline_told=None,
        other_hash_since=None,
        transaction_hash=None,
        evidence_block_hash=None,
        evidence_block_number=None,
        commit_attempt_id=None,
        commit_attempted_at=None,
        commit_refused_since=None,
        correlation_id=None,
        approvals_seen=0,
        warnings=(),
        cancel_requested_at=None,
        created_at=NOW,
        deadline_at=NOW + timedelta(days=30),
        attempts=0,
        proposal=None,
        facts=(),
        undecided_prepares=True,
    )
    if state is not State.RECEIVED:
        values = replace(values, **_prepared_columns())
    return replace(values, **overrides)


def _prepared_columns() -> dict[str, Any]:
    return {
        "vm_uuid": VM_UUID,
        "chain_id": CHAIN_ID,
        "app_contract": APP,
        "device_id": DEVICE,
        "compose_hash": COMPOSE_HASH,
        "commit_token": SecretStr(TOKEN),
        "prepare_attempted_at": NOW,
        "prepared_at": NOW,
        "token_expires_at": NOW + timedelta(days=14),
    }


def safe_transaction(
    kind: SafeTransactionKind = SafeTransactionKind.APPROVAL,
    *,
    nonce: int = 0,
    call: SafeCall | None = None,
    **overrides: Any,
) -> SafeTransaction:
    """A Safe transaction of ours whose hash fits its parts."""
    if call is None:
        approves = kind is SafeTransactionKind.APPROVAL
        call = approval_call(APP, COMPOSE_HASH, ()) if approves else rejection_call(SAFE)
    values = SafeTransaction(
        id="stx_1",
        kind=kind,
        state=SafeTransactionState.INTENDED,
        safe=SAFE,
        nonce=nonce,
        call=call,
        safe_tx_hash=safe_tx_hash(CHAIN_ID, SAFE, call, nonce),
        confirmations=(),
        threshold=None,
        transaction_hash=None,
    )
    return replace(values, **overrides)


def proposal(state: ProposalState = ProposalState.POSTING, **overrides: Any) -> Proposal:
    """A proposal of one member, without a transaction."""
    values = Proposal(
        id="prop_1",
        workspace_id="ws_1",
        state=state,
        chain_id=CHAIN_ID,
        app_contract=APP,
        compose_hash=COMPOSE_HASH,
        devices=(),
        safe=SAFE,
        transaction=None,
        rejection=None,
        members=("cr_1",),
        attempts=0,
        detail=None,
    )
    return replace(values, **overrides)


def hash_added(block: Block, **overrides: Any) -> ChainFact:
    """The log of the approval."""
    values = ChainFact(
        kind=FactKind.HASH_ADDED,
        app_contract=APP,
        value=COMPOSE_HASH,
        transaction_hash="0x" + "aa" * 32,
        block=block,
        log_index=0,
    )
    return replace(values, **overrides)
