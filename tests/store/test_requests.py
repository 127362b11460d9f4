"""Change requests as the API writes and reads them, when others write at the same time."""

import json
import re
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, text

from service.domain.errors import LeaseLost
from service.domain.outcomes import Advance, Facts, Wait
from service.domain.reasons import Reason
from service.domain.states import TERMINAL, State
from service.store import request_lists, requests, transitions, wishes
from service.store.changes import StateChanges
from service.store.database import Database
from service.store.request_lists import Filters, Place, Sort
from service.store.requests import NotAllowedHere, PreparedUpdate, Submission, TokenAlreadySubmitted
from service.store.tables import ChangeRequest, Event
from service.store.wishes import AlreadyEnded, CommitStarted
from tests.support import rows
from tests.support.threads import holding, in_background, together, wait_until_blocked

PREPARED = PreparedUpdate(rows.CHAIN_ID, rows.APP, rows.DEVICE, rows.COMPOSE_HASH, SecretStr("a-token"))


def _submission(workspace: str, **fields: Any) -> Submission:
    values: dict[str, Any] = {
        "workspace_id": workspace,
        "cvm_id": "my-app",
        "patch": rows.PATCH,
        "prepared": None,
        "title": "a change",
        "allow_without_approval": False,
        "warnings": ("careful",),
        "deadline_seconds": None,
    }
    return Submission(**(values | fields))


def _listed(
    database: Database, workspace: str, before: str | None = None, limit: int = 100, **filters: Any
) -> list[str]:
    with database.transaction() as session:
        after = None if before is None else Place(Sort.NEWEST, before)
        found = request_lists.listing(session, workspace, Filters(**filters), after=after, limit=limit)
        return [row.id for row in found]


class TestSubmit:
    def test_it_is_stored_due_with_its_first_event_and_delivery(self, database: Database):
        workspace = rows.workspace(database, webhooks=[("https://receiver.example", SecretStr("whsec_c2VjcmV0"))])
        row = requests.submit(database, _submission(workspace), rows.NOW, rows.ACTOR)
        assert (row.state, row.version, row.last_event_seq, row.warnings) == ("received", 0, 1, ["careful"])
        assert (row.deadline_at - rows.NOW).days == 30
        assert rows.is_due(database, ChangeRequest, row.id)
        (event,) = rows.events(database, row.id)
        assert (event.seq, event.type) == (1, "change_request.received")
        assert json.loads(event.body)["data"]["title"] == "a change"
        assert len(rows.deliveries(database)) == 1
        assert rows.read(database, ChangeRequest, row.id).patch == rows.PATCH

    def test_a_row_that_is_answered_needs_no_further_look(self, database: Database, workspace: str):
        """The session is over: every column must be there."""
        row = requests.submit(database, _submission(workspace), rows.NOW, rows.ACTOR)
        assert {column.name for column in ChangeRequest.__table__.columns} <= set(row.__dict__)

    @pytest.mark.fault("clients", "Two clients hand in one token", "one request, the other is refused", "at once")
    def test_a_token_is_taken_once_even_at_one_moment(self, database: Database, workspace: str):
        def submit() -> tuple[str, str | None]:
            try:
                asked = _submission(workspace, prepared=PREPARED)
                return "stored", requests.submit(database, asked, rows.NOW, rows.ACTOR).id
            except TokenAlreadySubmitted as taken:
                return "taken", taken.holder

        answers = together([submit] * 6)
        assert sorted(answer for answer, _ in answers) == ["stored", *["taken"] * 5]
        assert len({request_id for _, request_id in answers}) == 1, "those who come late are told which one has it"
        with database.transaction() as session:
            assert len(session.scalars(select(Event).where(Event.change_request_id.is_not(None))).all()) == 1

    def test_a_token_stays_taken_after_its_request_ended(self, database: Database, workspace: str):
        first = requests.submit(database, _submission(workspace, prepared=PREPARED), rows.NOW, rows.ACTOR)
        lease = rows.lease(database, ChangeRequest, first.id)
        transitions.apply(database, lease, State.RECEIVED, Advance(State.CANCELLED), rows.NOW)
        with pytest.raises(TokenAlreadySubmitted) as taken:
            requests.submit(database, _submission(workspace, prepared=PREPARED), rows.NOW, rows.ACTOR)
        assert taken.value.holder == first.id
        with pytest.raises(TokenAlreadySubmitted) as elsewhere:
            requests.submit(
                database, _submission(rows.workspace(database, "other"), prepared=PREPARED), rows.NOW, rows.ACTOR
            )
        assert elsewhere.value.holder is None, "what another workspace has is not told"

    def test_without_approval_must_be_permitted(self, database: Database, workspace: str):
        with pytest.raises(NotAllowedHere):
            requests.submit(database, _submission(workspace, allow_without_approval=True), rows.NOW, rows.ACTOR)
        assert _listed(database, workspace) == []
        permitted = rows.workspace(database, "other", allow_without_approval=True)
        asked = _submission(permitted, allow_without_approval=True)
        assert requests.submit(database, asked, rows.NOW, rows.ACTOR).state


class TestCancel:
    def _wish(self, database: Database, workspace: str, request_id: str) -> ChangeRequest | None:
        return wishes.wish_cancel(database, workspace, request_id, rows.NOW, rows.ACTOR)

    @pytest.mark.parametrize(
        "state", [State.RECEIVED, State.PREPARED, State.PROPOSED, State.EXECUTED, State.REGISTERED]
    )
    def test_it_is_a_wish_that_makes_the_row_due(self, database: Database, workspace: str, state: State):
        request_id = rows.change_request(database, workspace, state)
        rows.shift(database, ChangeRequest, request_id, due_at=600, rung_at=0)
        row = self._wish(database, workspace, request_id)
        assert row is not None
        assert (row.state, row.cancel_requested_at) == (state.value, rows.NOW)
        assert rows.is_due(database, ChangeRequest, request_id)
        self._wish(database, workspace, request_id)
        (event,) = rows.events(database, request_id)
        assert (event.type, event.state, event.seq) == ("change_request.cancel_requested", state.value, 1)
        assert event.actor == rows.ACTOR.as_json()

    def test_during_a_lease_it_is_served_right_after(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace)
        lease = rows.lease(database, ChangeRequest, request_id)
        self._wish(database, workspace, request_id)
        transitions.apply(database, lease, State.RECEIVED, Wait(600, Reason.PHALA_BUSY), rows.NOW)
        assert rows.is_due(database, ChangeRequest, request_id)
        assert rows.read(database, ChangeRequest, request_id).cancel_requested_at == rows.NOW

    def test_it_waits_for_a_write_in_progress_and_then_decides(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.REGISTERED)
        attempt = "UPDATE change_requests SET commit_attempted_at = now() WHERE id = :id"
        wishing = in_background(lambda: self._wish(database, workspace, request_id))
        with holding(database, attempt, id=request_id) as session, wishing as wished:
            wait_until_blocked(database, 1)
            session.commit()
            with pytest.raises(CommitStarted):
                wished.result()
        assert rows.read(database, ChangeRequest, request_id).cancel_requested_at is None

    @pytest.mark.fault(
        "people", "Cancel and commit at the same moment", "exactly one: cancelled, or 409 `commit_started`", "at once"
    )
    def test_of_a_wish_and_an_attempt_exactly_one_wins(self, database: Database, workspace: str):
        for _ in range(10):
            request_id = rows.change_request(database, workspace, State.REGISTERED)
            lease = rows.lease(database, ChangeRequest, request_id)

            def attempt(lease: transitions.Lease = lease) -> bool:
                try:
                    transitions.record(
                        database, lease, Facts(commit_attempt_id="a", commit_attempted_at=rows.NOW), commits=True
                    )
                except LeaseLost:
                    return False
                return True

            def wish(request_id: str = request_id) -> bool:
                try:
                    self._wish(database, workspace, request_id)
                except CommitStarted:
                    return False
                return True

            assert sorted(together([attempt, wish])) == [False, True]

    def test_a_committed_one_is_too_late(self, database: Database, workspace: str):
        with pytest.raises(CommitStarted):
            self._wish(database, workspace, rows.change_request(database, workspace, State.COMMITTED))

    @pytest.mark.parametrize("state", sorted(TERMINAL - {State.CANCELLED}))
    def test_so_is_one_that_ended(self, database: Database, workspace: str, state: State):
        with pytest.raises(AlreadyEnded):
            self._wish(database, workspace, rows.change_request(database, workspace, state))

    def test_again_changes_nothing(self, database: Database, workspace: str):
        cancelled = rows.change_request(database, workspace, State.CANCELLED)
        row = self._wish(database, workspace, cancelled)
        assert row is not None
        assert (row.state, row.due_at) == ("cancelled", None)

    def test_what_another_workspace_has_is_not_there(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace)
        assert self._wish(database, rows.workspace(database, "other"), request_id) is None
        assert rows.read(database, ChangeRequest, request_id).cancel_requested_at is None


class TestReading:
    def test_a_workspace_sees_its_own(self, database: Database, workspace: str):
        mine = rows.change_request(database, workspace)
        other = rows.workspace(database, "other")
        assert _listed(database, workspace) == [mine]
        assert _listed(database, other) == []
        with database.transaction() as session:
            assert requests.get(session, workspace, mine) is not None
            assert requests.get(session, other, mine) is None

    def test_pages_follow_each_other_while_new_ones_come(self, database: Database, workspace: str):
        ids = [rows.change_request(database, workspace) for _ in range(7)]
        ids.sort(reverse=True)
        first = _listed(database, workspace, limit=3)
        rows.change_request(database, workspace)
        second = _listed(database, workspace, before=first[-1], limit=3)
        third = _listed(database, workspace, before=second[-1], limit=3)
        assert first + second + third == ids

    def test_filters_narrow(self, database: Database, workspace: str):
        live = rows.change_request(database, workspace, State.PREPARED, cvm_id="one", vm_uuid="uuid-1")
        other = rows.change_request(database, workspace, State.PREPARED, compose_hash=rows.OTHER_HASH)
        ended = rows.change_request(database, workspace, State.CANCELLED, cvm_id="one")
        assert _listed(database, workspace, state=State.CANCELLED) == [ended]
        assert set(_listed(database, workspace, cvm_id="one")) == {live, ended}
        assert _listed(database, workspace, cvm_id="uuid-1") == [live]
        assert _listed(database, workspace, compose_hash=rows.OTHER_HASH) == [other]
        assert set(_listed(database, workspace, live=True)) == {live, other}
        assert _listed(database, workspace, live=False, cvm_id="one") == [ended]

    @pytest.mark.parametrize("text", ["nul \0", "\ud83d", "'; DROP TABLE change_requests; --", "%", ""])
    def test_no_text_makes_a_search_fail(self, database: Database, workspace: str, text: str):
        rows.change_request(database, workspace)
        assert _listed(database, workspace, cvm_id=text, compose_hash=text, before=text) == []
        with database.transaction() as session:
            assert requests.get(session, workspace, text) is None

    def test_ids_tell_their_kind_and_sort_by_age(self, database: Database, workspace: str):
        first = rows.change_request(database, workspace)
        with holding(database, "SELECT pg_sleep(0.002)"):
            second = rows.change_request(database, workspace)
        assert re.fullmatch(r"cr_[0-9a-f]{32}", first)
        assert first < second


def test_a_state_change_wakes_who_waits_for_it_and_only_when_it_is_committed(database: Database, workspace: str):
    request_id = rows.change_request(database, workspace)
    lease = rows.lease(database, ChangeRequest, request_id)
    with StateChanges(database, recheck_seconds=600) as changes:
        waiting = in_background(lambda: changes.wait(request_id, from_state="received", seconds=60))
        blocker = "SELECT id FROM workspaces WHERE id = :id FOR UPDATE"
        advance = in_background(
            lambda: transitions.apply(database, lease, State.RECEIVED, Advance(State.CANCELLED), rows.NOW)
        )
        with waiting as answered:
            with holding(database, blocker, id=workspace) as session, advance as applied:
                wait_until_blocked(database, 1)  # the transition is written, not committed
                assert not answered.done()
                session.commit()
                applied.result()
            answered.result(timeout=30)
    assert rows.read(database, ChangeRequest, request_id).state == "cancelled"


def test_a_submission_reads_no_more_the_more_requests_are_live(database: Database, workspace: str):
    """Whether another one of the CVM is live is asked of the indexes of live ones."""
    rows.change_request(database, workspace)
    copies = text(
        "INSERT INTO change_requests (id, workspace_id, state, state_entered_at, intake, cvm_id, patch, deadline_at,"
        " created_at, updated_at, due_at) SELECT 'cr_' || n, workspace_id, state, state_entered_at, intake,"
        " 'cvm-' || n, patch, deadline_at, created_at, updated_at, due_at"
        " FROM change_requests, generate_series(1, 3000) n"
    )
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(copies)
        connection.exec_driver_sql("ANALYZE change_requests")
    scans = text("SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'change_requests'")
    with database.together() as inside:
        requests.submit(inside, _submission(workspace), rows.NOW, rows.ACTOR)
        with inside.transaction() as session:
            assert session.scalar(scans) < 10
