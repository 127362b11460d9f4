"""One approval for all who need the same: joining, leaving, and its end."""

import json
from dataclasses import replace

import pytest

from service.domain.approver import Approver
from service.domain.chain import AppOwnership, SafeState
from service.domain.snapshots import ProposalState, SafeTransactionState
from service.domain.states import State
from service.store.database import Database
from service.store.proposals import StoredRequestIntents
from service.store.tables import ChangeRequest, Proposal
from tests.support import rows
from tests.support.members import EVIDENCE, every_proposal, join, member, move, snapshot
from tests.support.threads import together


class TestJoining:
    def test_the_first_makes_a_proposal_that_is_due(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.PREPARED)
        joined = join(database, request_id)
        assert (joined.state, joined.safe, joined.members) == (ProposalState.POSTING, rows.SAFE, (request_id,))
        assert (joined.app_contract, joined.compose_hash) == (rows.APP, rows.COMPOSE_HASH)
        assert rows.is_due(database, Proposal, joined.id)

    def test_who_approves_is_kept_as_it_was_last_read(self, database: Database, workspace: str):
        request_ids = [rows.change_request(database, workspace, State.PREPARED) for _ in range(3)]
        owned = AppOwnership(has_code=True, owner=rows.SAFE, pending_owner=None)
        safe = SafeState(rows.SAFE, "1.4.1", (rows.OTHER_APP,), 1, 0)
        before, after = (Approver(owned, replace(safe, guard=guard)) for guard in (None, rows.OTHER_APP))
        for request_id, approver in zip(request_ids, (before, after, None), strict=True):
            lease = rows.lease(database, ChangeRequest, request_id)
            joined = StoredRequestIntents(database, lease).join_proposal((), rows.SAFE, approver)
            expected = before if approver is before else after
            stored = rows.read(database, Proposal, joined.id).approver
            assert stored == json.loads(json.dumps(expected.as_json()))

    def test_ten_at_once_share_one(self, database: Database, workspace: str):
        request_ids = [rows.change_request(database, workspace, State.PREPARED) for _ in range(10)]
        joined = together([lambda each=each: join(database, each) for each in request_ids])
        assert len({proposal.id for proposal in joined}) == 1
        assert len(every_proposal(database)) == 1
        assert set(snapshot(database, joined[0].id).members) == set(request_ids)

    def test_other_devices_need_another(self, database: Database, workspace: str):
        first, second = (rows.change_request(database, workspace, State.PREPARED) for _ in range(2))
        assert join(database, first, ()).id != join(database, second, (rows.DEVICE,)).id

    def test_the_order_of_devices_does_not_matter(self, database: Database, workspace: str):
        first, second = (rows.change_request(database, workspace, State.PREPARED) for _ in range(2))
        both = join(database, first, (rows.DEVICE, rows.OTHER_DEVICE))
        assert join(database, second, (rows.OTHER_DEVICE, rows.DEVICE)).id == both.id
        assert both.devices == tuple(sorted((rows.DEVICE, rows.OTHER_DEVICE)))

    @pytest.mark.parametrize(
        "columns", [{"compose_hash": rows.OTHER_HASH}, {"app_contract": rows.OTHER_APP}, {"chain_id": 1}]
    )
    def test_another_identity_needs_another(self, database: Database, workspace: str, columns: dict[str, object]):
        first = rows.change_request(database, workspace, State.PREPARED)
        second = rows.change_request(database, workspace, State.PREPARED, **columns)
        assert join(database, first).id != join(database, second).id

    def test_workspaces_do_not_share(self, database: Database, workspace: str):
        mine = rows.change_request(database, workspace, State.PREPARED)
        theirs = rows.change_request(database, rows.workspace(database, "other"), State.PREPARED)
        joined = together([lambda: join(database, mine), lambda: join(database, theirs)])
        assert [proposal.members for proposal in joined] == [(mine,), (theirs,)]

    def test_one_that_is_being_withdrawn_takes_nobody(self, database: Database, workspace: str):
        withdrawing = rows.proposal(database, workspace, ProposalState.WITHDRAWING)
        request_id = rows.change_request(database, workspace, State.PREPARED)
        assert join(database, request_id).id == withdrawing
        assert rows.read(database, ChangeRequest, request_id).proposal_id is None
        assert snapshot(database, withdrawing).members == ()

    @pytest.mark.parametrize(
        "state", [ProposalState.APPROVED, ProposalState.WITHDRAWN, ProposalState.REJECTED, ProposalState.FAILED]
    )
    def test_after_one_ended_the_next_makes_a_new_one(self, database: Database, workspace: str, state: ProposalState):
        ended = rows.proposal(database, workspace, state)
        joined = join(database, rows.change_request(database, workspace, State.PREPARED))
        assert joined.id != ended
        assert joined.state is ProposalState.POSTING

    def test_an_external_approval_has_no_safe_and_is_not_served(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.PREPARED)
        joined = join(database, request_id, safe=None)
        assert (joined.state, joined.safe) == (ProposalState.EXTERNAL, None)
        assert rows.read(database, Proposal, joined.id).due_at is None

    def test_who_joins_another_one_hears_of_all_its_alerts(self, database: Database, workspace: str):
        first = rows.proposal(database, workspace)
        request_id = rows.change_request(database, workspace, State.PREPARED, proposal_id=first, alerts_seen=7)
        join(database, request_id)
        assert rows.read(database, ChangeRequest, request_id).alerts_seen == 7
        join(database, request_id, (rows.DEVICE,))
        assert rows.read(database, ChangeRequest, request_id).alerts_seen == 0

    def test_again_changes_nothing(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.PREPARED)
        assert join(database, request_id) == join(database, request_id)


class TestLeaving:
    def test_the_last_one_has_it_withdrawn_at_once(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace)
        rows.shift(database, Proposal, proposal_id, due_at=600, rung_at=0)
        request_id = member(database, workspace, proposal_id)
        move(database, request_id, State.PROPOSED, State.CANCELLED)
        assert rows.read(database, Proposal, proposal_id).state == "withdrawing"
        assert rows.is_due(database, Proposal, proposal_id)

    def test_one_of_ten_leaves_it_to_the_nine(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace)
        request_ids = [member(database, workspace, proposal_id) for _ in range(10)]
        move(database, request_ids[0], State.PROPOSED, State.CANCELLED)
        left = snapshot(database, proposal_id)
        assert (left.state, left.members) == (ProposalState.QUEUED, tuple(sorted(request_ids[1:])))

    def test_of_ten_that_leave_at_once_one_is_the_last(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace)
        request_ids = [member(database, workspace, proposal_id) for _ in range(10)]
        together([lambda each=each: move(database, each, State.PROPOSED, State.CANCELLED) for each in request_ids])
        assert snapshot(database, proposal_id).state is ProposalState.WITHDRAWING

    @pytest.mark.parametrize("target", [State.EXPIRED, State.SUPERSEDED, State.FAILED])
    def test_however_it_leaves(self, database: Database, workspace: str, target: State):
        proposal_id = rows.proposal(database, workspace, ProposalState.POSTING)
        move(database, member(database, workspace, proposal_id, State.PREPARED), State.PREPARED, target)
        assert snapshot(database, proposal_id).state is ProposalState.WITHDRAWING

    def test_an_external_one_just_ends(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace, ProposalState.EXTERNAL)
        move(database, member(database, workspace, proposal_id), State.PROPOSED, State.CANCELLED)
        assert snapshot(database, proposal_id).state is ProposalState.WITHDRAWN

    def test_one_that_ended_stays_as_it_is(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace, ProposalState.REJECTED)
        move(database, member(database, workspace, proposal_id), State.PROPOSED, State.REJECTED)
        assert snapshot(database, proposal_id).state is ProposalState.REJECTED

    def test_who_moves_to_another_one_leaves_the_first(self, database: Database, workspace: str):
        """After a reorg the device may need an approval that it had before."""
        first = rows.proposal(database, workspace)
        request_id = member(database, workspace, first, State.PREPARED)
        second = join(database, request_id, (rows.DEVICE,))
        assert second.members == (request_id,)
        assert snapshot(database, first).state is ProposalState.WITHDRAWING

    def test_and_leaves_it_to_those_who_stay(self, database: Database, workspace: str):
        first = rows.proposal(database, workspace)
        staying = member(database, workspace, first)
        join(database, member(database, workspace, first, State.PREPARED), (rows.DEVICE,))
        left = snapshot(database, first)
        assert (left.state, left.members) == (ProposalState.QUEUED, (staying,))

    def test_two_that_change_places_do_not_block_each_other(self, database: Database, workspace: str):
        plain = rows.proposal(database, workspace)
        with_device = rows.proposal(database, workspace, devices=[rows.DEVICE])
        to_device = [member(database, workspace, plain, State.PREPARED) for _ in range(5)]
        to_plain = [member(database, workspace, with_device, State.PREPARED) for _ in range(5)]
        together(
            [lambda each=each: join(database, each, (rows.DEVICE,)) for each in to_device]
            + [lambda each=each: join(database, each, ()) for each in to_plain]
        )
        for proposal in every_proposal(database):
            members = snapshot(database, proposal.id).members
            assert bool(members) == (proposal.state in ("queued", "posting"))


class TestApproved:
    def test_a_final_approval_ends_it(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace)
        first, second = (member(database, workspace, proposal_id, State.EXECUTED) for _ in range(2))
        move(database, first, State.EXECUTED, State.REGISTERED, EVIDENCE)
        row = rows.read(database, Proposal, proposal_id)
        assert (row.state, row.due_at) == ("approved", None)
        move(database, second, State.EXECUTED, State.REGISTERED, EVIDENCE)
        assert snapshot(database, proposal_id).state is ProposalState.APPROVED

    @pytest.mark.parametrize(
        ("state", "due"),
        [
            (SafeTransactionState.INTENDED, True),
            (SafeTransactionState.QUEUED, True),
            (SafeTransactionState.EXECUTED, False),
            (SafeTransactionState.REPLACED, False),
        ],
    )
    def test_a_safe_transaction_that_may_be_left_in_the_queue_is_looked_after(
        self, database: Database, workspace: str, state: SafeTransactionState, due: bool
    ):
        proposal_id = rows.proposal(database, workspace, queue_due_at=rows.NOW)
        rows.approval(database, proposal_id, state=state)
        request_id = member(database, workspace, proposal_id, State.EXECUTED)
        move(database, request_id, State.EXECUTED, State.REGISTERED, EVIDENCE)
        row = rows.read(database, Proposal, proposal_id)
        assert (row.state, row.due_at is not None, row.queue_due_at) == ("approved", due, None)
        assert rows.is_due(database, Proposal, proposal_id) is due

    def test_the_next_request_of_that_identity_makes_a_new_one(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace)
        move(
            database,
            member(database, workspace, proposal_id, State.EXECUTED),
            State.EXECUTED,
            State.REGISTERED,
            EVIDENCE,
        )
        assert join(database, rows.change_request(database, workspace, State.PREPARED)).id != proposal_id

    def test_ten_that_register_at_once_end_it_once(self, database: Database, workspace: str):
        proposal_id = rows.proposal(database, workspace)
        request_ids = [member(database, workspace, proposal_id, State.EXECUTED) for _ in range(10)]
        together(
            [lambda each=each: move(database, each, State.EXECUTED, State.REGISTERED, EVIDENCE) for each in request_ids]
        )
        assert snapshot(database, proposal_id).state is ProposalState.APPROVED
