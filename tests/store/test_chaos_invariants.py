"""Each invariant of the fault harness holds of good rows, and finds a row that was planted against it."""

from collections.abc import Iterator

import psycopg
import pytest
from pydantic import SecretStr

from service.domain.outcomes import Advance, Facts
from service.domain.snapshots import ProposalState, SafeTransactionState
from service.domain.states import State
from service.store import requests, transitions
from service.store.columns import Base
from service.store.database import Database
from service.store.requests import Submission
from service.store.tables import ChangeRequest
from tests.chaos.invariants import ALWAYS, AT_REST, Connection, Invariant
from tests.support import rows

_WAY = {
    State.PREPARED: Facts(
        vm_uuid="00000000-0000-4000-8000-00000000abcd",
        chain_id=rows.CHAIN_ID,
        app_contract=rows.APP,
        device_id=rows.DEVICE,
        compose_hash=rows.COMPOSE_HASH,
        commit_token="a-fresh-token",
    ),
    State.REGISTERED: Facts(evidence_block_hash="0x" + "b1" * 32, evidence_block_number=100),
    State.COMMITTED: Facts(correlation_id="corr-1", commit_attempt_id="a", commit_attempted_at=rows.NOW),
    State.COMPLETED: Facts(running_evidence="attestation"),
}
_ANOTHER = "INSERT INTO {table} SELECT (jsonb_populate_record(t, '{changes}')).* FROM {table} t LIMIT 1"
_DELIVERED = "UPDATE webhook_deliveries SET state = 'delivered', due_at = NULL"
_LIVE = "UPDATE change_requests SET state = 'prepared', due_at = now()"
_LIVE_PROPOSAL = "UPDATE proposals SET state = 'posting', due_at = now();"
_LIVE_APPROVAL = "UPDATE safe_transactions SET state = 'queued';"
_EVENT_TO = "UPDATE events SET state = 'received', type = 'change_request.received' WHERE seq = 3"
_EVENT_ALTERED = """UPDATE events SET actor = '{"kind": "operator"}' WHERE seq = 2"""
_EVENT_GONE = "DELETE FROM webhook_deliveries; DELETE FROM events WHERE seq = "

PLANTED: dict[str, str] = {
    "requests_ended_or_have_timer_and_reason": _LIVE + " - interval '2 minutes'",
    "one_live_proposal_per_identity": _LIVE_PROPOSAL
    + _ANOTHER.format(table="proposals", changes='{"id": "prop_another"}'),
    "one_live_approval_per_nonce": _LIVE_APPROVAL
    + _ANOTHER.format(table="safe_transactions", changes='{"id": "stx_another", "position": 99}'),
    "one_request_holds_a_cvm": _LIVE
    + ";"
    + _ANOTHER.format(table="change_requests", changes='{"id": "cr_another", "commit_token_fingerprint": null}'),
    "event_sequences_have_no_gap": _EVENT_GONE + "2",
    "audit_chains_verify": _EVENT_ALTERED,
    "no_state_without_its_event": _EVENT_TO,
    "no_event_without_its_delivery": "DELETE FROM webhook_deliveries",
    "no_token_where_none_is_needed": "UPDATE change_requests SET commit_token_sealed = '\\x00'",
    "no_commit_without_final_approval": "UPDATE events SET type = 'change_request.alert' WHERE state = 'registered'",
    "completed_runs_what_was_approved": "UPDATE change_requests SET running_evidence = NULL",
    "no_live_proposal_nobody_waits_for": "UPDATE proposals SET state = 'queued', due_at = now()",
    "every_request_ended": _LIVE,
    "every_event_was_delivered": "UPDATE webhook_deliveries SET state = 'pending', due_at = now() WHERE id IN"
    " (SELECT min(id) FROM webhook_deliveries)",
    "every_proposal_ended": "UPDATE proposals SET due_at = now()",
}


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """On a request that completed, in a transaction in which nothing keeps bad rows out."""
    workspace = rows.workspace(database, webhooks=[("https://receiver.example/hook", SecretStr("whsec_c2VjcmV0"))])
    asked = Submission(workspace, "my-agent", {"vcpu": 2}, None, None, False, [], None)
    request = requests.submit(database, asked, rows.NOW, rows.ACTOR)
    proposal_id = rows.proposal(database, workspace, ProposalState.APPROVED)
    rows.approval(database, proposal_id, state=SafeTransactionState.EXECUTED)
    before = State.RECEIVED
    for state, facts in _WAY.items():
        lease = rows.lease(database, ChangeRequest, request.id)
        transitions.apply(database, lease, before, Advance(state, facts), rows.NOW)
        before = state
    with psycopg.connect(database.engine.url.render_as_string(False).replace("+psycopg", "")) as opened:
        _without_constraints(opened)
        opened.execute(_DELIVERED)
        opened.execute("UPDATE webhook_endpoints SET created_at = '2000-01-01'")
        yield opened
        opened.rollback()


def _without_constraints(connection: Connection) -> None:
    named = connection.execute(
        "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype IN ('c', 'u', 'f') AND connamespace"
        " = 'public'::regnamespace ORDER BY contype DESC, conname"
    ).fetchall()
    connection.execute("ALTER TABLE events DISABLE TRIGGER USER")
    for table, constraint in sorted(named, key=lambda one: "fk_" not in one[1]):
        connection.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{constraint}"')  # type: ignore[call-overload]  # names from the catalogue
    unique = [index.name for table in Base.metadata.sorted_tables for index in table.indexes if index.unique]
    for index in unique:
        connection.execute(f"DROP INDEX {index}")  # type: ignore[call-overload]  # likewise


def test_every_invariant_has_a_violation():
    assert set(PLANTED) == {invariant.__name__ for invariant in (*ALWAYS, *AT_REST)}


@pytest.mark.parametrize("invariant", [*ALWAYS, *AT_REST], ids=lambda invariant: invariant.__name__)
def test_an_invariant_finds_what_was_planted(connection: Connection, invariant: Invariant):
    assert invariant(connection) == []

    connection.execute(PLANTED[invariant.__name__])  # type: ignore[call-overload]  # texts of this module

    assert invariant(connection) != []
