"""Rows that must not exist are refused by the database itself, whoever writes them."""

from typing import Any

import pytest
from psycopg.errors import CheckViolation, UniqueViolation
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from service.domain.snapshots import ProposalState, SafeTransactionKind, SafeTransactionState
from service.domain.states import TERMINAL, State
from service.store.database import Database
from service.store.tables import ChainFact, Event, InboundEvent, SafeTransaction, WebhookDelivery, Workspace
from tests.support import heard, rows

_SEALED = {"commit_token_sealed": b"sealed", "commit_token_fingerprint": b"fingerprint"}
_LIVE = frozenset(State) - TERMINAL
_AFTER_PREPARE = (State.PREPARED, State.PROPOSED, State.EXECUTED, State.REGISTERED)


def _refused(error: pytest.ExceptionInfo[IntegrityError], kind: type[Exception], constraint: str) -> bool:
    assert isinstance(error.value.orig, kind)
    return str(error.value.orig.diag.constraint_name).endswith(constraint)


@pytest.mark.parametrize(
    ("state", "columns", "constraint"),
    [
        *[(state, {"due_at": None}, "live_is_due") for state in sorted(_LIVE)],
        *[(state, {"due_at": rows.NOW}, "live_is_due") for state in sorted(TERMINAL)],
        *[(state, _SEALED, "ended_holds_no_token") for state in sorted(TERMINAL)],
        (State.COMMITTED, _SEALED, "committed_holds_no_token"),
        *[
            (state, {column: None}, "prepared_holds_hash_and_token")
            for state in _AFTER_PREPARE
            for column in ("vm_uuid", "chain_id", "app_contract", "device_id", "compose_hash", "commit_token_sealed")
        ],
        (State.PREPARED, {"commit_token_fingerprint": None}, "token_has_fingerprint"),
        (State.PROPOSED, {"proposal_id": None}, "proposed_has_proposal"),
        (State.EXECUTED, {"evidence_block_hash": None}, "on_chain_has_evidence"),
        (State.REGISTERED, {"evidence_block_hash": None}, "on_chain_has_evidence"),
        (State.COMMITTED, {"compose_hash": None}, "committed_has_hash"),
        (State.COMMITTED, {"correlation_id": None}, "committed_has_correlation_id"),
        (State.FAILED, {"reason": None}, "failed_has_reason"),
        (State.RECEIVED, {"patch": None}, "_patch"),
        (State.RECEIVED, {"intake": "telepathy"}, "_intake"),
        (State.RECEIVED, {"compose_hash": "c0" * 32}, "_compose_hash"),
        (State.RECEIVED, {"compose_hash": "0x" + "C0" * 32}, "_compose_hash"),
        (State.RECEIVED, {"compose_hash": "0x" + "c0" * 31 + "c"}, "_compose_hash"),
        (State.RECEIVED, {"device_id": "0x" + "de" * 33}, "_device_id"),
    ],
)
def test_an_impossible_change_request(
    database: Database, workspace: str, state: State, columns: dict[str, Any], constraint: str
):
    with pytest.raises(IntegrityError) as caught:
        rows.change_request(database, workspace, state, **columns)
    assert _refused(caught, CheckViolation, constraint)


def test_a_state_nobody_knows(database: Database, workspace: str):
    request_id = rows.change_request(database, workspace)
    with pytest.raises(IntegrityError) as caught, database.transaction() as session:
        session.connection().exec_driver_sql("UPDATE change_requests SET state = 'paused'")
    assert _refused(caught, CheckViolation, "ck_change_requests_state")
    assert request_id


@pytest.mark.parametrize(
    ("state", "columns", "constraint"),
    [
        (ProposalState.POSTING, {"due_at": None}, "served_is_due"),
        (ProposalState.QUEUED, {"due_at": None}, "served_is_due"),
        (ProposalState.WITHDRAWING, {"due_at": None}, "served_is_due"),
        (ProposalState.EXTERNAL, {"due_at": rows.NOW}, "ended_is_not_due"),
        (ProposalState.FAILED, {"due_at": rows.NOW}, "ended_is_not_due"),
        (ProposalState.APPROVED, {"due_at": rows.NOW, "safe": None}, "ended_is_not_due"),
        (ProposalState.EXTERNAL, {"safe": rows.SAFE}, "external_has_no_safe"),
        (ProposalState.POSTING, {"safe": None}, "served_has_safe"),
    ],
)
def test_an_impossible_proposal(
    database: Database, workspace: str, state: ProposalState, columns: dict[str, Any], constraint: str
):
    with pytest.raises(IntegrityError) as caught:
        rows.proposal(database, workspace, state, **columns)
    assert _refused(caught, CheckViolation, constraint)


@pytest.mark.parametrize(("column", "value"), [("nonce", -1), ("operation", 2), ("kind", "wish"), ("state", "lost")])
def test_an_impossible_safe_transaction(database: Database, workspace: str, column: str, value: object):
    rows.approval(database, rows.proposal(database, workspace))
    with pytest.raises(IntegrityError) as caught, database.transaction() as session:
        session.execute(update(SafeTransaction).values({column: value}))
    assert _refused(caught, CheckViolation, f"ck_safe_transactions_{column}")


def test_a_chain_fact_of_no_kind(database: Database):
    values = {"chain_id": 1, "app_contract": rows.APP, "value": "0x", "transaction_hash": "0x", "block_hash": "0x"}
    with pytest.raises(IntegrityError) as caught, database.transaction() as session:
        session.add(ChainFact(kind="rumour", block_number=1, log_index=0, **values))
    assert _refused(caught, CheckViolation, "_kind")


def test_a_workspace_without_time(database: Database):
    with pytest.raises(IntegrityError) as caught:
        rows.workspace(database, deadline_seconds=0)
    assert _refused(caught, CheckViolation, "_deadline")


class TestOnce:
    def test_two_live_requests_of_a_cvm(self, database: Database, workspace: str):
        rows.change_request(database, workspace, State.PREPARED, vm_uuid="vm")
        with pytest.raises(IntegrityError) as caught:
            rows.change_request(database, workspace, State.REGISTERED, vm_uuid="vm")
        assert _refused(caught, UniqueViolation, "uq_change_requests_live_cvm")

    def test_two_live_proposals_of_an_identity(self, database: Database, workspace: str):
        rows.proposal(database, workspace, ProposalState.WITHDRAWN)
        rows.proposal(database, workspace, ProposalState.WITHDRAWING)
        with pytest.raises(IntegrityError) as caught:
            rows.proposal(database, workspace, ProposalState.POSTING)
        assert _refused(caught, UniqueViolation, "uq_proposals_live_identity")

    def test_two_live_approvals_at_a_nonce(self, database: Database, workspace: str):
        first = rows.proposal(database, workspace)
        second = rows.proposal(database, rows.workspace(database, "other"))
        rows.approval(database, first, 4)
        rows.approval(database, second, 4, SafeTransactionState.REPLACED)
        rejection = SafeTransactionKind.REJECTION.value
        rows.approval(database, first, 4, kind=rejection)
        with pytest.raises(IntegrityError) as caught:
            rows.approval(database, second, 4)
        assert _refused(caught, UniqueViolation, "uq_safe_transactions_live_approval")

    def test_two_events_with_a_number(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace)
        values = {"workspace_id": workspace, "change_request_id": request_id, "type": "t", "state": "s", "body": "{}"}
        with pytest.raises(IntegrityError) as caught, database.transaction() as session:
            session.add_all([Event(id=each, seq=1, created_at=rows.NOW, **values) for each in ("e1", "e2")])
        assert _refused(caught, UniqueViolation, "uq_events_change_request_id_seq")

    def test_two_workspaces_of_a_name(self, database: Database, workspace: str):
        assert rows.workspace(database) == workspace
        with pytest.raises(IntegrityError) as caught, database.transaction() as session:
            session.add(Workspace(id="ws_2", slug="acme", phala_base_url="https://p.example", phala_api_key_sealed=b""))
        assert _refused(caught, UniqueViolation, "uq_workspaces_slug")

    def test_a_delivery_belongs_to_an_event(self, database: Database):
        with pytest.raises(IntegrityError) as caught, database.transaction() as session:
            session.add(WebhookDelivery(id="dlv", event_id="none", endpoint_id="none", due_at=rows.NOW))
        assert str(caught.value.orig).count("fk_webhook_deliveries")


@pytest.mark.parametrize(
    ("columns", "constraint"),
    [
        ({"verdict": "echo", "decided_at": rows.NOW}, "decided_holds_no_token"),
        ({"token_sealed": None}, "decided_holds_no_token"),
        ({"verdict": "echo", "token_sealed": None}, "decided_has_time"),
        ({"verdict": "wait", "token_sealed": None, "decided_at": rows.NOW}, "_verdict"),
    ],
)
def test_an_impossible_heard_prepare(database: Database, workspace: str, columns: dict[str, Any], constraint: str):
    rows.change_request(database, workspace, State.PREPARED, vm_uuid=heard.VM_UUID)
    heard.hear(database, workspace)
    with pytest.raises(IntegrityError) as caught, database.transaction() as session:
        session.execute(update(InboundEvent).values(**columns))
    assert _refused(caught, CheckViolation, constraint)
