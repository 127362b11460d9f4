"""The gates before a commit, as the steps meet them."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from service.domain.chain import FactKind
from service.domain.errors import CvmBeingFreed, NotVisibleYet, Unreachable
from service.domain.gates import CommitPolicy, Freeze, Gates
from service.domain.outcomes import Advance, Notice, Outcome, Wait
from service.domain.prepares import TOKEN_LIFETIME
from service.domain.reasons import Reason
from service.domain.snapshots import ChangeRequest
from service.domain.states import State
from service.steps.commit import commit
from service.steps.prepare import prepare
from service.steps.upkeep import upkeep
from tests.support.builders import NOW, PATCH, change_request, workspace
from tests.support.committing import ADOPTED, assert_ended, committed, cut_off, unanswered
from tests.support.fake_chain import FakeChain
from tests.support.fake_phala import FakePhala
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner, FixedClock, RecordingRequestIntents

FROZEN = Gates(freeze=Freeze(NOW, "key_1", "an incident"))
HELD = Gates(policy=CommitPolicy.HOLD)


@pytest.fixture
def run(
    phala: FakePhala, chains: dict[int, FakeChain], intents: RecordingRequestIntents, clock: FixedClock
) -> partial[Outcome]:
    return partial(commit, phala=phala, chains=chains, intents=intents, clock=clock, new_id=lambda: "attempt")


def waits(outcome: Outcome, reason: Reason) -> Wait:
    assert isinstance(outcome, Wait)
    assert outcome.reason is reason
    assert not outcome.failed_attempt
    return outcome


class TestCommit:
    @pytest.mark.parametrize(
        ("gates", "reason"),
        [
            (FROZEN, Reason.COMMITS_FROZEN),
            (HELD, Reason.HELD_FOR_RELEASE),
            (Gates(failed="cr_2"), Reason.HELD_AFTER_FAILURE),
            (Gates(not_before=NOW + timedelta(hours=1)), Reason.WAITING_FOR_TIME),
            (Gates(in_flight=("cr_2",)), Reason.WAITING_FOR_OTHER_COMMITS),
        ],
    )
    def test_a_held_request_calls_nobody_and_stores_no_attempt(
        self,
        run: partial[Outcome],
        registered: ChangeRequest,
        phala: FakePhala,
        chain: FakeChain,
        intents: RecordingRequestIntents,
        gates: Gates,
        reason: Reason,
    ) -> None:
        looks = len(chain.calls)
        waits(run(replace(registered, gates=gates)), reason)
        assert (phala.calls, phala.commits, intents.recorded) == ([], [], [])
        assert len(chain.calls) == looks, "a wait of days must not read the chain every minute"

    def test_what_a_person_must_open_is_told_once(self, run: partial[Outcome], registered: ChangeRequest) -> None:
        first = waits(run(replace(registered, gates=HELD)), Reason.HELD_FOR_RELEASE)
        assert [(notice, data["by"]) for notice, data in first.notices] == [(Notice.HELD, "held_for_release")]
        again = replace(registered, gates=HELD, reason=Reason.HELD_FOR_RELEASE)
        assert waits(run(again), Reason.HELD_FOR_RELEASE).notices == ()
        frozen = waits(run(replace(again, gates=FROZEN)), Reason.COMMITS_FROZEN)
        assert [notice for notice, _ in frozen.notices] == [Notice.HELD]

    def test_what_opens_by_itself_is_not_told(self, run: partial[Outcome], registered: ChangeRequest) -> None:
        queued = replace(registered, gates=Gates(in_flight=("cr_2",)))
        assert waits(run(queued), Reason.WAITING_FOR_OTHER_COMMITS).notices == ()

    def test_released_it_commits(self, run: partial[Outcome], registered: ChangeRequest) -> None:
        assert run(replace(registered, gates=replace(HELD, released_at=NOW))) == committed("op-1")

    def test_a_withdrawn_approval_ends_it_while_it_is_held(
        self, run: partial[Outcome], registered: ChangeRequest, chain: FakeChain
    ) -> None:
        chain.mine((FactKind.HASH_REMOVED, registered.compose_hash or ""), empty=chain.depth)
        ended = run(replace(registered, gates=replace(HELD, removed=True)))
        assert_ended(ended, State.FAILED, Reason.APPROVAL_WITHDRAWN)

    def test_an_approval_that_came_back_is_still_held(self, run: partial[Outcome], registered: ChangeRequest) -> None:
        waits(run(replace(registered, gates=replace(HELD, removed=True))), Reason.HELD_FOR_RELEASE)

    def test_a_freeze_holds_the_next_attempt_of_one_that_was_refused(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        phala.fail("commit", NotVisibleYet("the node lags"))
        assert isinstance(run(registered), Wait)
        attempted = replace(registered, commit_attempted_at=NOW, gates=FROZEN)
        waits(run(attempted), Reason.COMMITS_FROZEN)
        assert phala.commits == []

    def test_a_freeze_does_not_keep_a_landed_commit_from_being_seen(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        phala.fail("commit", cut_off(), after_effect=True)
        phala.fail("operations", Unreachable("503", reason=Reason.PHALA_UNREACHABLE))
        with pytest.raises(Unreachable):
            run(registered)
        assert run(unanswered(registered, gates=FROZEN)) == committed("op-1", ADOPTED)

    def test_a_freeze_holds_the_repeat_of_one_that_did_not_land(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        waits(run(unanswered(registered, gates=FROZEN)), Reason.COMMITS_FROZEN)
        assert phala.calls == ["operations"]


class TestEnds:
    def test_a_successor_ends_it(self, run: partial[Outcome], registered: ChangeRequest) -> None:
        ended = run(replace(registered, superseded_by="cr_9", gates=HELD))
        assert_ended(ended, State.SUPERSEDED, Reason.SUPERSEDED_BY_REQUEST)
        assert isinstance(ended, Advance)
        assert "cr_9" in (ended.detail or "")

    def test_a_cancel_counts_first(self, run: partial[Outcome], registered: ChangeRequest) -> None:
        ended = run(replace(registered, superseded_by="cr_9", cancel_requested_at=NOW))
        assert_ended(ended, State.CANCELLED, Reason.CANCELLED_BY_USER)

    def test_the_deadline_ends_a_held_one(self, run: partial[Outcome], registered: ChangeRequest) -> None:
        ended = run(replace(registered, deadline_at=NOW, gates=FROZEN))
        assert_ended(ended, State.EXPIRED, Reason.DEADLINE_PASSED)


class TestToken:
    @pytest.mark.parametrize(("gates", "refreshed"), [(HELD, True), (FROZEN, True), (Gates(), False)])
    def test_it_is_renewed_while_the_request_is_held(
        self,
        registered: ChangeRequest,
        phala: FakePhala,
        intents: RecordingRequestIntents,
        clock: FixedClock,
        gates: Gates,
        *,
        refreshed: bool,
    ) -> None:
        ending = replace(registered, token_expires_at=NOW + timedelta(days=1), gates=gates)
        kept = upkeep(ending, phala=lambda: phala, intents=intents, clock=clock)
        assert ("prepare" in phala.calls) is refreshed
        assert (kept.request.token_expires_at == NOW + TOKEN_LIFETIME) is refreshed


@pytest.fixture
def preparing(
    phala: FakePhala,
    chains: dict[int, FakeChain],
    queues: dict[int, FakeSafeQueue],
    signer: FakeSigner,
    intents: RecordingRequestIntents,
    clock: FixedClock,
) -> partial[Outcome]:
    return partial(prepare, phala=phala, chains=chains, queues=queues, signer=signer, intents=intents, clock=clock)


class TestAppliedAtOnce:
    """A change that needs no approval is applied by its prepare: that is its commit."""

    @pytest.mark.parametrize(("gates", "sent"), [(FROZEN, 0), (HELD, 0), (replace(HELD, released_at=NOW), 1)])
    def test_it_is_held_before_it_is_sent(
        self, preparing: partial[Outcome], phala: FakePhala, gates: Gates, sent: int
    ) -> None:
        permitting = workspace(allow_without_approval=True)
        preparing(change_request(patch={"vcpu": 2}, allow_without_approval=True, workspace=permitting, gates=gates))
        assert phala.calls.count("prepare") == sent

    @pytest.mark.parametrize(("patch", "commits"), [({"vcpu": 2}, 1), (PATCH, 0)])
    def test_a_gate_that_closes_meanwhile_is_seen_when_the_attempt_is_stored(
        self, preparing: partial[Outcome], intents: RecordingRequestIntents, patch: dict[str, Any], commits: int
    ) -> None:
        permitting = workspace(allow_without_approval=True)
        preparing(change_request(patch=patch, allow_without_approval=True, workspace=permitting))
        assert intents.committing == [{"prepare_attempted_at": NOW}] * commits


def test_a_cvm_that_is_being_freed_is_waited_for(
    preparing: partial[Outcome], phala: FakePhala, intents: RecordingRequestIntents
) -> None:
    intents.error = CvmBeingFreed("change request cr_0 of this CVM is ending")
    with pytest.raises(CvmBeingFreed):
        preparing(change_request(patch=PATCH))
    assert "prepare" not in phala.calls
