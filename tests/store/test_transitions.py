"""The one writer of state: what a transition writes, all of it or nothing."""

import json

import pytest
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from service.domain.errors import LeaseLost
from service.domain.outcomes import Advance, Facts, Notice, Wait
from service.domain.reasons import Reason
from service.domain.states import EDGES, TERMINAL, TRANSITIONS, Edge, State
from service.store import leases, snapshots, transitions
from service.store.database import Database
from service.store.leases import Lease
from service.store.tables import ChangeRequest, Event, Proposal
from tests.support import rows
from tests.support.threads import holding, in_background, together, wait_until_blocked

EVIDENCE = Facts(transaction_hash="0x" + "aa" * 32, evidence_block_hash="0x" + "b1" * 32, evidence_block_number=100)
PREPARED = Facts(
    vm_uuid="00000000-0000-4000-8000-00000000abcd",
    chain_id=rows.CHAIN_ID,
    app_contract=rows.APP,
    device_id=rows.DEVICE,
    compose_hash=rows.COMPOSE_HASH,
    commit_token="a-fresh-token",
)
FACTS: dict[State, Facts] = {
    State.PREPARED: PREPARED,
    State.EXECUTED: EVIDENCE,
    State.REGISTERED: EVIDENCE,
    State.COMMITTED: Facts(correlation_id="corr-1"),
}


def _outcome(target: State) -> Advance:
    reason = Reason.INTERNAL_ERROR if target is State.FAILED else None
    return Advance(target, FACTS.get(target, Facts()), reason=reason, detail="why")


def _advance(database: Database, request_id: str, source: State, outcome: Advance) -> None:
    transitions.apply(database, rows.lease(database, ChangeRequest, request_id), source, outcome, rows.NOW)


class TestEdges:
    @pytest.mark.parametrize("edge", EDGES, ids=lambda edge: f"{edge.source}-{edge.target}")
    def test_an_edge_writes_state_event_and_delivery_together(self, database: Database, edge: Edge):
        workspace = rows.workspace(database, webhooks=[("https://receiver.example/hook", SecretStr("whsec_c2VjcmV0"))])
        proposal_id = rows.proposal(database, workspace)
        request_id = rows.change_request(database, workspace, edge.source, proposal_id=proposal_id)
        _advance(database, request_id, edge.source, _outcome(edge.target))

        row = rows.read(database, ChangeRequest, request_id)
        assert (row.state, row.version, row.attempts, row.lease_until) == (edge.target.value, 1, 0, None)
        assert (row.state_entered_at, row.updated_at, row.detail) == (rows.NOW, rows.NOW, "why")
        assert (row.due_at is None) == (edge.target in TERMINAL)
        assert edge.target in TERMINAL or rows.is_due(database, ChangeRequest, request_id)
        spent = edge.target in TERMINAL or edge.target is State.COMMITTED
        assert (row.commit_token_sealed is None) == spent

        (event,) = rows.events(database, request_id)
        assert (event.seq, row.last_event_seq) == (1, 1)
        assert (event.type, event.state) == (f"change_request.{edge.target}", edge.target.value)
        body = json.loads(event.body)
        assert body["data"]["previous_state"] == edge.source.value
        assert (body["data"]["id"], body["data"]["sequence"], body["data"]["state"]) == (request_id, 1, edge.target)
        assert body["data"]["links"]["self"] == f"https://countersign.example/v1/change-requests/{request_id}"
        assert [(sent.event_id, sent.state) for sent in rows.deliveries(database)] == [(event.id, "pending")]

    @pytest.mark.parametrize("source", State)
    def test_an_edge_that_is_not_in_the_table_is_refused(self, database: Database, workspace: str, source: State):
        request_id = rows.change_request(database, workspace, source)
        row = rows.read(database, ChangeRequest, request_id)
        lease = Lease(ChangeRequest, request_id, row.fence, rows.NOW)
        if source not in TERMINAL:
            lease = rows.lease(database, ChangeRequest, request_id)
        for target in frozenset(State) - TRANSITIONS[source]:
            with pytest.raises(transitions.TransitionRefused, match=target.value):
                transitions.apply(database, lease, source, _outcome(target), rows.NOW)
        assert rows.read(database, ChangeRequest, request_id).state == source.value
        assert rows.events(database, request_id) == []

    def test_the_state_is_compared_before_it_is_set(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.PROPOSED)
        lease = rows.lease(database, ChangeRequest, request_id)
        with pytest.raises(LeaseLost):
            transitions.apply(database, lease, State.EXECUTED, _outcome(State.REGISTERED), rows.NOW)
        assert rows.read(database, ChangeRequest, request_id).state == "proposed"
        assert rows.events(database, request_id) == []

    def test_what_cannot_be_stored_leaves_nothing_half_done(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace)
        with pytest.raises(Exception, match="prepared_holds_hash_and_token"):
            _advance(database, request_id, State.RECEIVED, Advance(State.PREPARED))
        row = rows.read(database, ChangeRequest, request_id)
        assert (row.state, row.version, row.last_event_seq) == ("received", 0, 0)
        assert rows.events(database, request_id) == []

    @pytest.mark.fault(
        "database",
        "Writing a state, its event or its delivery fails",
        "none of the three is stored",
        "the next try, after 1 s or more",
    )
    @pytest.mark.parametrize("table", ["events", "webhook_deliveries"])
    def test_a_state_without_its_event_or_delivery_is_not_stored(self, database: Database, table: str):
        workspace = rows.workspace(database, webhooks=[("https://receiver.example/hook", SecretStr("whsec_c2VjcmV0"))])
        proposal_id = rows.proposal(database, workspace)
        request_id = rows.change_request(database, workspace, State.PROPOSED, proposal_id=proposal_id)
        with database.engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD CONSTRAINT full_disk CHECK (false) NOT VALID")
        try:
            with pytest.raises(IntegrityError, match="full_disk"):
                _advance(database, request_id, State.PROPOSED, Advance(State.CANCELLED))
        finally:
            with database.engine.begin() as connection:
                connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT full_disk")
        row = rows.read(database, ChangeRequest, request_id)
        assert (row.state, row.version, row.last_event_seq) == ("proposed", 0, 0)
        assert row.commit_token_sealed is not None
        assert rows.read(database, Proposal, proposal_id).state == "queued"
        assert (rows.events(database, request_id), rows.deliveries(database)) == ([], [])

    def test_notices_follow_the_state_in_the_same_transaction(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.EXECUTED)
        outcome = Advance(State.PREPARED, notices=((Notice.REORGED, {"block_number": 100}),))
        _advance(database, request_id, State.EXECUTED, outcome)
        prepared, reorged = rows.events(database, request_id)
        assert (prepared.seq, prepared.type) == (1, "change_request.prepared")
        assert (reorged.seq, reorged.type) == (2, "change_request.reorged")
        assert json.loads(reorged.body)["data"]["block_number"] == 100

    def test_an_unexpected_success_of_a_prepare_can_be_stored(self, database: Database, workspace: str):
        """Applied at once, nobody permitted it, no hash known: to refuse the row would repeat the change for ever."""
        request_id = rows.change_request(database, workspace)
        _advance(database, request_id, State.RECEIVED, Advance(State.COMMITTED, Facts(correlation_id="corr-1")))
        assert rows.read(database, ChangeRequest, request_id).state == "committed"


class TestWait:
    def test_a_wait_keeps_the_state_and_says_why(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.PROPOSED)
        lease = rows.lease(database, ChangeRequest, request_id)
        facts = Facts(approvals_seen=2)
        outcome = Wait(30, Reason.WAITING_FOR_OWNERS, "2 of 3", facts, ((Notice.APPROVAL_ADDED, {"approvals": 2}),))
        transitions.apply(database, lease, State.PROPOSED, outcome, rows.NOW)
        row = rows.read(database, ChangeRequest, request_id)
        assert (row.state, row.version, row.approvals_seen) == ("proposed", 0, 2)
        assert (row.reason, row.detail) == ("waiting_for_owners", "2 of 3")
        assert [event.type for event in rows.events(database, request_id)] == ["change_request.approval_added"]
        assert 25 < (rows.due_in(database, ChangeRequest, request_id) or 0) <= 30

    def test_failed_attempts_are_counted_until_one_succeeds(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace)
        for attempts, failed in ((1, True), (2, True), (0, False), (1, True)):
            outcome = Wait(0, Reason.PHALA_UNREACHABLE, failed_attempt=failed)
            lease = rows.lease(database, ChangeRequest, request_id)
            transitions.apply(database, lease, State.RECEIVED, outcome, rows.NOW)
            assert rows.read(database, ChangeRequest, request_id).attempts == attempts

    @pytest.mark.parametrize("seconds", [0, 0.25, 1, 60, 3600.5])
    def test_any_length_can_be_stored(self, database: Database, workspace: str, seconds: float):
        request_id = rows.change_request(database, workspace)
        lease = rows.lease(database, ChangeRequest, request_id)
        transitions.apply(database, lease, State.RECEIVED, Wait(seconds, Reason.PHALA_BUSY), rows.NOW)
        left = rows.due_in(database, ChangeRequest, request_id)
        assert left is not None
        assert seconds - 5 < left <= seconds


class TestHostileText:
    """PostgreSQL takes neither NUL nor half a surrogate pair; upstreams send what they like."""

    @pytest.mark.parametrize("text", ["nul \0 inside", "half a pair \ud83d here", "\udfff", "\x1b[31mred"])
    def test_no_text_keeps_a_step_from_ending(self, database: Database, workspace: str, text: str):
        request_id = rows.change_request(database, workspace)
        lease = rows.lease(database, ChangeRequest, request_id)
        transitions.record(database, lease, Facts(cvm_name=text))
        data = {"message": text}
        wait = Wait(0, Reason.PREPARE_REFUSED, text, notices=((Notice.ALERT, data),))
        transitions.apply(database, lease, State.RECEIVED, wait, rows.NOW)
        _advance(
            database, request_id, State.RECEIVED, Advance(State.FAILED, reason=Reason.PREPARE_REFUSED, detail=text)
        )
        row = rows.read(database, ChangeRequest, request_id)
        assert row.state == "failed"
        for event in rows.events(database, request_id):
            assert json.loads(event.body)["data"]["cvm"]["name"]


class TestSequence:
    def test_numbers_have_no_gaps_whoever_writes(self, database: Database, workspace: str):
        """Many workers compete for one row; each that wins writes two events."""
        request_id = rows.change_request(database, workspace, State.PROPOSED)
        notices = ((Notice.APPROVAL_ADDED, {}), (Notice.THRESHOLD_REACHED, {}))

        def work() -> int:
            wins = 0
            while wins < 5:
                lease = leases.acquire(database, ChangeRequest, request_id)
                if lease is not None:
                    wait = Wait(0, Reason.WAITING_FOR_OWNERS, notices=notices)
                    transitions.apply(database, lease, State.PROPOSED, wait, rows.NOW)
                    wins += 1
            return wins

        assert sum(together([work] * 6)) == 30
        assert [event.seq for event in rows.events(database, request_id)] == list(range(1, 61))
        assert rows.read(database, ChangeRequest, request_id).last_event_seq == 60

    def test_a_write_that_waited_for_another_numbers_on_from_it(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.PROPOSED)
        lease = rows.lease(database, ChangeRequest, request_id)
        outcome = Wait(5, Reason.WAITING_FOR_OWNERS, notices=((Notice.APPROVAL_ADDED, {}),))
        other = "UPDATE change_requests SET last_event_seq = 7 WHERE id = :id"
        writing = in_background(lambda: transitions.apply(database, lease, State.PROPOSED, outcome, rows.NOW))
        with holding(database, other, id=request_id) as session, writing as written:
            wait_until_blocked(database, 1)
            session.commit()
            written.result()
        assert [event.seq for event in rows.events(database, request_id)] == [8]

    def test_events_carry_nothing_secret(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace)
        _advance(database, request_id, State.RECEIVED, Advance(State.PREPARED, PREPARED))
        (event,) = rows.events(database, request_id)
        assert "a-fresh-token" not in event.body
        assert "nginx" not in event.body


class TestToken:
    def test_it_is_sealed_for_its_row_and_recognised_by_its_fingerprint(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace)
        _advance(database, request_id, State.RECEIVED, Advance(State.PREPARED, PREPARED))
        row = rows.read(database, ChangeRequest, request_id)
        assert b"a-fresh-token" not in row.commit_token_sealed
        assert row.commit_token_fingerprint == database.sealer.fingerprint(SecretStr("a-fresh-token"))
        with database.transaction() as session:
            snapshot = snapshots.change_request(database, session, request_id)
        assert snapshot.commit_token is not None
        assert snapshot.commit_token.get_secret_value() == "a-fresh-token"

    def test_a_fresh_one_takes_the_place_of_the_old(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.REGISTERED)
        lease = rows.lease(database, ChangeRequest, request_id)
        transitions.record(database, lease, Facts(commit_token="fresh"))
        row = rows.read(database, ChangeRequest, request_id)
        assert row.commit_token_fingerprint == database.sealer.fingerprint(SecretStr("fresh"))

    def test_the_fingerprint_stays_when_the_token_is_spent(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.REGISTERED)
        before = rows.read(database, ChangeRequest, request_id).commit_token_fingerprint
        outcome = Advance(State.COMMITTED, Facts(correlation_id="corr", commit_token=None))
        _advance(database, request_id, State.REGISTERED, outcome)
        _advance(database, request_id, State.COMMITTED, Advance(State.COMPLETED))
        row = rows.read(database, ChangeRequest, request_id)
        assert (row.commit_token_sealed, row.commit_token_fingerprint) == (None, before)

    def test_one_token_belongs_to_one_request(self, database: Database, workspace: str):
        spent = rows.change_request(database, workspace, State.RECEIVED, vm_uuid="vm-1")
        _advance(database, spent, State.RECEIVED, Advance(State.PREPARED, PREPARED))
        _advance(database, spent, State.PREPARED, Advance(State.CANCELLED))
        second = rows.change_request(database, workspace)
        with pytest.raises(Exception, match="commit_token_fingerprint"):
            _advance(database, second, State.RECEIVED, Advance(State.PREPARED, PREPARED))

    def test_an_error_of_the_database_shows_no_parameters(self, database: Database, workspace: str):
        lease = rows.lease(database, ChangeRequest, rows.change_request(database, workspace))
        secret = "the password in a compose file"
        with pytest.raises(Exception, match="out of range") as caught:
            transitions.record(database, lease, Facts(cvm_name=secret, chain_id=2**70))
        assert secret not in str(caught.value)


def test_every_state_has_its_event_after_a_whole_life(database: Database, workspace: str):
    request_id = rows.change_request(database, workspace)
    life = [State.RECEIVED, State.PREPARED, State.PROPOSED, State.EXECUTED, State.REGISTERED, State.COMMITTED]
    proposal_id = rows.proposal(database, workspace)
    for source, target in zip(life, [*life[1:], State.COMPLETED], strict=True):
        if target is State.PROPOSED:
            with database.transaction() as session:
                session.get_one(ChangeRequest, request_id).proposal_id = proposal_id
        _advance(database, request_id, source, _outcome(target))
    assert [event.state for event in rows.events(database, request_id)] == [
        *(state.value for state in life[1:]),
        "completed",
    ]
    with database.transaction() as session:
        ours = select(Event.position).where(Event.change_request_id == request_id)
        positions = session.scalars(ours.order_by(Event.seq)).all()
    assert list(positions) == sorted(positions)
