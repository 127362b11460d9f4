"""Facts stored before a call is made: refused when the CVM is another's, or a cancel came first."""

import json

import pytest

from service.domain.errors import CvmBusy, LeaseLost
from service.domain.outcomes import Advance, Facts
from service.domain.reasons import Reason
from service.domain.states import TERMINAL, State
from service.store import transitions
from service.store.database import Database
from service.store.leases import Lease
from service.store.tables import ChangeRequest
from tests.support import rows
from tests.support.threads import together

PREPARED = Facts(
    vm_uuid="00000000-0000-4000-8000-00000000abcd",
    chain_id=rows.CHAIN_ID,
    app_contract=rows.APP,
    device_id=rows.DEVICE,
    compose_hash=rows.COMPOSE_HASH,
    commit_token="a-fresh-token",
)


class TestBusyCvm:
    VM_UUID = "00000000-0000-4000-8000-00000000beef"

    @pytest.fixture
    def holder(self, database: Database, workspace: str) -> str:
        return rows.change_request(database, workspace, State.PROPOSED, vm_uuid=self.VM_UUID)

    def test_a_late_collision_names_the_other_request(self, database: Database, workspace: str, holder: str):
        lease = rows.lease(database, ChangeRequest, rows.change_request(database, workspace))
        with pytest.raises(CvmBusy) as recorded:
            transitions.record(database, lease, Facts(vm_uuid=self.VM_UUID))
        assert holder in recorded.value.detail
        outcome = Advance(State.PREPARED, Facts(**{**PREPARED, "vm_uuid": self.VM_UUID}))
        with pytest.raises(CvmBusy) as applied:
            transitions.apply(database, lease, State.RECEIVED, outcome, rows.NOW)
        assert holder in applied.value.detail

    def test_after_it_the_lease_still_writes_the_failure(self, database: Database, workspace: str, holder: str):
        request_id = rows.change_request(database, workspace)
        lease = rows.lease(database, ChangeRequest, request_id)
        with pytest.raises(CvmBusy) as busy:
            transitions.record(database, lease, Facts(vm_uuid=self.VM_UUID))
        failed = Advance(State.FAILED, reason=Reason.CVM_BUSY, detail=busy.value.detail)
        transitions.apply(database, lease, State.RECEIVED, failed, rows.NOW)
        body = json.loads(rows.events(database, request_id)[0].body)
        assert body["data"]["reason"]["code"] == "cvm_busy"
        assert holder in body["data"]["reason"]["detail"]

    def test_another_workspace_is_not_named_nor_in_the_way(self, database: Database, holder: str):
        other = rows.workspace(database, "other")
        lease = rows.lease(database, ChangeRequest, rows.change_request(database, other))
        transitions.record(database, lease, Facts(vm_uuid=self.VM_UUID))
        assert rows.read(database, ChangeRequest, holder).state == "proposed"

    @pytest.mark.parametrize("state", sorted(TERMINAL | {State.COMMITTED}))
    def test_one_that_is_over_or_committed_blocks_nobody(self, database: Database, workspace: str, state: State):
        rows.change_request(database, workspace, state, vm_uuid=self.VM_UUID)
        lease = rows.lease(database, ChangeRequest, rows.change_request(database, workspace))
        transitions.record(database, lease, Facts(vm_uuid=self.VM_UUID))

    def test_of_many_at_once_one_gets_the_cvm(self, database: Database, workspace: str):
        taken = [rows.lease(database, ChangeRequest, rows.change_request(database, workspace)) for _ in range(8)]

        def resolve(lease: Lease) -> str | None:
            try:
                transitions.record(database, lease, Facts(vm_uuid=self.VM_UUID))
            except CvmBusy as busy:
                return busy.detail
            return None

        answers = together([lambda lease=lease: resolve(lease) for lease in taken])
        winner = taken[answers.index(None)].row_id
        assert answers.count(None) == 1
        assert all(str(winner) in answer for answer in answers if answer is not None)


class TestCancelAgainstCommit:
    """A wish that was accepted wins against a commit that has not been stored."""

    def test_an_attempt_is_not_stored_once_a_cancel_was_accepted(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.REGISTERED)
        lease = rows.lease(database, ChangeRequest, request_id)
        with database.transaction() as session:
            session.get_one(ChangeRequest, request_id).cancel_requested_at = rows.NOW
        with pytest.raises(LeaseLost):
            transitions.record(
                database, lease, Facts(commit_attempt_id="a1", commit_attempted_at=rows.NOW), commits=True
            )
        row = rows.read(database, ChangeRequest, request_id)
        assert (row.commit_attempt_id, row.commit_attempted_at) == (None, None)
        assert rows.is_due(database, ChangeRequest, request_id), "the wish is served at once"

    def test_other_facts_are_still_stored(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.REGISTERED, cancel_requested_at=rows.NOW)
        lease = rows.lease(database, ChangeRequest, request_id)
        transitions.record(database, lease, Facts(prepare_attempted_at=rows.NOW))
        assert rows.read(database, ChangeRequest, request_id).prepare_attempted_at == rows.NOW

    def test_a_later_attempt_is_stored(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.REGISTERED, commit_attempted_at=rows.NOW)
        lease = rows.lease(database, ChangeRequest, request_id)
        transitions.record(database, lease, Facts(commit_attempt_id="a2", commit_attempted_at=rows.NOW), commits=True)
        assert rows.read(database, ChangeRequest, request_id).commit_attempt_id == "a2"
