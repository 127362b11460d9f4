"""One live change request per CVM: refused when it is known at the submission, or found out by the prepare."""

import json
from typing import Any

import pytest

from service.domain.conflicts import OnConflict
from service.domain.errors import CvmBeingFreed, CvmBusy, LeaseLost
from service.domain.outcomes import Facts, Wait
from service.domain.reasons import Reason
from service.domain.states import HOLDS_CVM, TERMINAL, State
from service.steps.ends import ending
from service.store import requests, snapshots, transitions
from service.store.database import Database
from service.store.requests import CvmHeld, Submission
from service.store.tables import ChangeRequest
from tests.support import rows
from tests.support.threads import together

VM_UUID = "00000000-0000-4000-8000-00000000beef"
SUPERSEDE = OnConflict.SUPERSEDE


def submit(database: Database, workspace: str, cvm_id: str = "my-app", **fields: Any) -> ChangeRequest:
    asked = Submission(workspace, cvm_id, rows.PATCH, None, None, False, (), None, **fields)
    return requests.submit(database, asked, rows.NOW, rows.ACTOR)


def count(database: Database, workspace: str) -> int:
    with database.transaction() as session:
        return session.query(ChangeRequest).filter_by(workspace_id=workspace).count()


def resolve(database: Database, request_id: str) -> None:
    """What the prepare of a request does first."""
    lease = rows.lease(database, ChangeRequest, request_id)
    transitions.record(database, lease, Facts(vm_uuid=VM_UUID))


def serve_wish(database: Database, request_id: str) -> None:
    """What the next step of a request does about a wish."""
    lease = rows.lease(database, ChangeRequest, request_id)
    with database.transaction() as session:
        request = snapshots.change_request(database, session, request_id)
    end = ending(request, rows.NOW)
    assert end is not None
    transitions.apply(database, lease, request.state, end, rows.NOW)


class TestAtTheSubmission:
    @pytest.mark.parametrize("state", sorted(HOLDS_CVM))
    @pytest.mark.parametrize("known_by", ["cvm_id", "vm_uuid"])
    def test_a_live_one_refuses_it_and_is_named(self, database: Database, workspace: str, state: State, known_by: str):
        named = {"cvm_id": "my-app"} if known_by == "cvm_id" else {"vm_uuid": VM_UUID}
        older = rows.change_request(database, workspace, state, **named)
        with pytest.raises(CvmHeld) as held:
            submit(database, workspace, vm_uuid=VM_UUID)
        assert (held.value.holder, held.value.commits) == (older, False)
        assert count(database, workspace) == 1
        assert rows.read(database, ChangeRequest, older).superseded_by is None

    @pytest.mark.parametrize("state", sorted(TERMINAL | {State.COMMITTED}))
    def test_one_that_is_over_or_committed_is_not_in_the_way(self, database: Database, workspace: str, state: State):
        rows.change_request(database, workspace, state, cvm_id="my-app")
        assert submit(database, workspace).supersedes is None

    def test_another_cvm_or_workspace_is_not_in_the_way(self, database: Database, workspace: str):
        rows.change_request(database, rows.workspace(database, "other"), State.PROPOSED, cvm_id="my-app")
        rows.change_request(database, workspace, State.PROPOSED, cvm_id="another")
        assert submit(database, workspace).supersedes is None

    @pytest.mark.parametrize("wish", [{"cancel_requested_at": rows.NOW}, {"superseded_by": "cr_9"}])
    def test_one_that_is_about_to_end_is_not_in_the_way(self, database: Database, workspace: str, wish: dict[str, Any]):
        rows.change_request(database, workspace, State.PROPOSED, cvm_id="my-app", **wish)
        assert submit(database, workspace).supersedes is None

    @pytest.mark.parametrize("state", sorted(HOLDS_CVM))
    def test_superseding_is_a_wish_that_its_holder_makes_true(self, database: Database, workspace: str, state: State):
        older = rows.change_request(database, workspace, state, cvm_id="my-app")
        rows.shift(database, ChangeRequest, older, due_at=600, rung_at=0)
        newer = submit(database, workspace, on_conflict=SUPERSEDE)
        row = rows.read(database, ChangeRequest, older)
        assert (newer.supersedes, row.superseded_by, row.state) == (older, newer.id, state.value)
        assert rows.is_due(database, ChangeRequest, older)
        serve_wish(database, older)
        row = rows.read(database, ChangeRequest, older)
        assert (row.state, row.reason) == ("superseded", "superseded_by_request")
        data = json.loads(rows.events(database, older)[-1].body)["data"]
        assert (data["state"], data["superseded_by"]) == ("superseded", newer.id)

    def test_once_its_commit_was_attempted_it_is_too_late(self, database: Database, workspace: str):
        older = rows.change_request(
            database, workspace, State.REGISTERED, cvm_id="my-app", commit_attempted_at=rows.NOW
        )
        with pytest.raises(CvmHeld) as held:
            submit(database, workspace, on_conflict=SUPERSEDE)
        assert (held.value.holder, held.value.commits) == (older, True)
        assert count(database, workspace) == 1

    def test_of_many_at_one_moment_all_but_one_give_way(self, database: Database, workspace: str):
        """Those that did not see each other meet at the prepare."""
        older = rows.change_request(database, workspace, State.PROPOSED, cvm_id="my-app", vm_uuid=VM_UUID)
        made = together([lambda: submit(database, workspace, on_conflict=SUPERSEDE).id] * 4)
        assert rows.read(database, ChangeRequest, older).superseded_by in made


class TestAtThePrepare:
    """Only Phala Cloud knows that two names are one CVM."""

    @pytest.fixture
    def older(self, database: Database, workspace: str) -> str:
        return rows.change_request(database, workspace, State.PROPOSED, vm_uuid=VM_UUID)

    def test_it_is_refused_unless_it_asked_to_supersede(self, database: Database, workspace: str, older: str):
        newer = submit(database, workspace)
        with pytest.raises(CvmBusy, match=older):
            resolve(database, newer.id)
        assert rows.read(database, ChangeRequest, older).superseded_by is None

    def test_it_stores_the_wish_waits_and_takes_the_place(self, database: Database, workspace: str, older: str):
        newer = submit(database, workspace, on_conflict=SUPERSEDE)
        lease = rows.lease(database, ChangeRequest, newer.id)
        with pytest.raises(CvmBeingFreed, match=older) as freed:
            transitions.record(database, lease, Facts(vm_uuid=VM_UUID))
        wait = Wait(60, freed.value.reason, freed.value.detail)
        transitions.apply(database, lease, State.RECEIVED, wait, rows.NOW)
        row = rows.read(database, ChangeRequest, newer.id)
        assert (row.supersedes, row.reason) == (older, Reason.WAITING_FOR_PREDECESSOR)
        assert rows.read(database, ChangeRequest, older).superseded_by == newer.id
        assert not rows.is_due(database, ChangeRequest, newer.id)

        serve_wish(database, older)

        assert rows.is_due(database, ChangeRequest, newer.id), "its place is free now"
        resolve(database, newer.id)
        assert rows.read(database, ChangeRequest, newer.id).vm_uuid == VM_UUID

    def test_it_is_too_late_once_a_commit_was_attempted(self, database: Database, workspace: str):
        older = rows.change_request(
            database, workspace, State.REGISTERED, vm_uuid=VM_UUID, commit_attempted_at=rows.NOW
        )
        newer = submit(database, workspace, on_conflict=SUPERSEDE)
        with pytest.raises(CvmBusy, match=f"{older}.*has started"):
            resolve(database, newer.id)

    @pytest.mark.parametrize("on_conflict", sorted(OnConflict))
    @pytest.mark.parametrize("wish", [{"cancel_requested_at": rows.NOW}, {"superseded_by": "cr_9"}])
    def test_one_that_is_about_to_end_is_waited_for(
        self, database: Database, workspace: str, wish: dict[str, Any], on_conflict: OnConflict
    ):
        rows.change_request(database, workspace, State.PROPOSED, vm_uuid=VM_UUID, **wish)
        newer = submit(database, workspace, on_conflict=on_conflict)
        with pytest.raises(CvmBeingFreed):
            resolve(database, newer.id)

    def test_a_newer_one_is_not_superseded(self, database: Database, workspace: str):
        late = submit(database, workspace, on_conflict=SUPERSEDE)
        newer = rows.change_request(database, workspace, State.PROPOSED, vm_uuid=VM_UUID)
        with pytest.raises(CvmBusy, match=newer):
            resolve(database, late.id)
        assert rows.read(database, ChangeRequest, newer).superseded_by is None

    @pytest.mark.parametrize("turn", range(8))
    def test_an_attempt_and_a_wish_at_one_moment(self, database: Database, workspace: str, turn: int):
        """Whichever is stored first wins; the other one finds it."""
        older = rows.change_request(database, workspace, State.REGISTERED, cvm_id="my-app")
        lease = rows.lease(database, ChangeRequest, older)

        def commit() -> bool:
            try:
                transitions.record(
                    database, lease, Facts(commit_attempt_id="a", commit_attempted_at=rows.NOW), commits=True
                )
            except LeaseLost:
                return False
            return True

        def supersede() -> bool:
            try:
                submit(database, workspace, on_conflict=SUPERSEDE)
            except CvmHeld as held:
                return not held.commits
            return True

        calls = [commit, supersede]
        assert sorted(together(calls if turn % 2 else calls[::-1])) == [False, True]
