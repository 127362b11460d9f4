from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count

import pytest

from service.domain.chain import FactKind
from service.domain.errors import (
    Busy,
    LeaseLost,
    NotVisibleYet,
    Refused,
    TokenDead,
    Unauthorized,
    Unreachable,
)
from service.domain.outcomes import Advance, Outcome, Wait
from service.domain.phala_facts import Operation, OperationStatus
from service.domain.reasons import Reason
from service.domain.snapshots import ChangeRequest
from service.domain.states import State
from service.steps.commit import ALREADY_REGISTERED, commit
from service.steps.track import track
from tests.support.builders import COMPOSE_HASH, DEVICE, NOW, OTHER_HASH, VM_UUID
from tests.support.committing import ADOPTED, TRANSACTION, assert_ended, committed, cut_off, unanswered
from tests.support.fake_chain import FakeChain
from tests.support.fake_phala import FakePhala
from tests.support.fakes import FixedClock, RecordingRequestIntents


@pytest.fixture
def run(
    phala: FakePhala, chains: dict[int, FakeChain], intents: RecordingRequestIntents, clock: FixedClock
) -> partial[Outcome]:
    numbers = count(1)
    return partial(
        commit, phala=phala, chains=chains, intents=intents, clock=clock, new_id=lambda: f"attempt-{next(numbers)}"
    )


class TestTheLine:
    def test_a_final_approval_is_committed(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, compose_hash: str
    ) -> None:
        assert run(registered) == committed("op-1")
        assert registered.commit_token is not None
        assert phala.commits == [(registered.commit_token.get_secret_value(), compose_hash, TRANSACTION)]
        assert phala.calls == ["commit"]

    def test_the_attempt_is_stored_before_the_post(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, intents: RecordingRequestIntents
    ) -> None:
        intents.error = LeaseLost("another worker")

        with pytest.raises(LeaseLost):
            run(registered)

        assert phala.calls == []
        intents.error = None
        run(registered)
        assert intents.recorded == [{"commit_attempt_id": "attempt-2", "commit_attempted_at": NOW}]
        assert intents.committing == intents.recorded

    def test_without_a_transaction_the_sentinel_is_sent(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        run(replace(registered, transaction_hash=None))

        assert phala.commits[0][2] == ALREADY_REGISTERED


class TestEnds:
    @pytest.mark.parametrize(
        ("columns", "state", "reason"),
        [
            ({"cancel_requested_at": NOW}, State.CANCELLED, Reason.CANCELLED_BY_USER),
            ({"deadline_at": NOW}, State.EXPIRED, Reason.DEADLINE_PASSED),
            ({"token_expires_at": NOW, "patch": None}, State.EXPIRED, Reason.TOKEN_EXPIRED),
        ],
    )
    def test_before_an_attempt(
        self,
        run: partial[Outcome],
        registered: ChangeRequest,
        phala: FakePhala,
        columns: dict[str, object],
        state: State,
        reason: Reason,
    ) -> None:
        outcome = run(replace(registered, **columns))  # type: ignore[arg-type]  # parametrised columns

        assert_ended(outcome, state, reason)
        assert phala.calls == []

    def test_a_wish_is_too_late_during_an_unanswered_attempt(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, intents: RecordingRequestIntents
    ) -> None:
        """Nobody knows whether it landed, so it cannot be taken back: it is sent again, under its own id."""
        asked = unanswered(registered, cancel_requested_at=NOW)

        assert run(asked) == committed("op-1")

        assert phala.calls == ["operations", "commit"]
        assert [stored["commit_attempt_id"] for stored in intents.recorded] == [asked.commit_attempt_id]

    def test_the_deadline_ends_an_unanswered_attempt_only_after_a_look(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        long_ago = NOW - timedelta(seconds=60)
        outcome = run(unanswered(registered, deadline_at=NOW, commit_attempted_at=long_ago))

        assert_ended(outcome, State.EXPIRED, Reason.DEADLINE_PASSED)
        assert phala.calls == ["operations"]

    def test_an_attempt_just_before_the_deadline_has_time_to_be_listed(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, clock: FixedClock
    ) -> None:
        late = unanswered(registered, deadline_at=NOW + timedelta(seconds=1))
        clock.advance(seconds=2)
        assert isinstance(run(late), Wait)
        assert phala.commits == [], "past the deadline nothing is sent"

        clock.advance(seconds=60)
        assert_ended(run(late), State.EXPIRED, Reason.DEADLINE_PASSED)

    def test_past_the_deadline_a_look_that_fails_is_repeated_for_a_while(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, clock: FixedClock
    ) -> None:
        down = Unreachable("down", reason=Reason.PHALA_UNREACHABLE)
        phala.fail("operations", down, down)
        late = unanswered(registered, deadline_at=NOW)

        with pytest.raises(Unreachable):
            run(late)
        clock.advance(seconds=late.workspace.run_deadline_seconds)

        assert_ended(run(late), State.EXPIRED, Reason.DEADLINE_PASSED)
        assert phala.commits == []


class TestTheAllowlist:
    @pytest.mark.fault(
        "chain", "A node is behind the block of the approval", "no commit until it caught up", "5 s between looks"
    )
    def test_a_final_block_older_than_the_approval_proves_nothing(
        self, run: partial[Outcome], registered: ChangeRequest, chain: FakeChain, phala: FakePhala
    ) -> None:
        final = chain.view().final
        chain.rewind(1)

        outcome = run(replace(registered, evidence_block_number=final.number, evidence_block_hash=final.hash))

        detail = f"the node is behind: its final block is {final.number - 1}"
        assert outcome == Wait(5.0, Reason.WAITING_FOR_FINALITY, detail)
        assert phala.calls == []

    def test_not_allowed_at_the_final_block(
        self, run: partial[Outcome], registered: ChangeRequest, chain: FakeChain, phala: FakePhala
    ) -> None:
        chain.mine((FactKind.HASH_REMOVED, registered.compose_hash or ""), empty=chain.depth)

        assert_ended(run(registered), State.FAILED, Reason.APPROVAL_WITHDRAWN)
        assert phala.calls == []

    @pytest.mark.fault(
        "chain",
        "The hash is taken away just before the commit",
        "no commit; ends when that is final",
        "the finality of the chain",
    )
    def test_not_allowed_at_the_head(
        self, run: partial[Outcome], registered: ChangeRequest, chain: FakeChain, phala: FakePhala
    ) -> None:
        head = chain.mine((FactKind.DEVICE_REMOVED, DEVICE))

        outcome = run(registered)

        assert outcome == Wait(5.0, Reason.WAITING_FOR_FINALITY, f"not allowed any more at block {head.number}")
        assert phala.calls == []

    def test_another_hash_is_not_enough(self, run: partial[Outcome], registered: ChangeRequest) -> None:
        assert_ended(run(replace(registered, compose_hash=COMPOSE_HASH)), State.FAILED, Reason.APPROVAL_WITHDRAWN)


class TestALostAnswer:
    def test_it_is_found_at_once(self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala) -> None:
        phala.fail("commit", cut_off(), after_effect=True)

        assert run(registered) == committed("op-1", ADOPTED)
        assert len(phala.commits) == 1

    @pytest.mark.fault(
        "Phala Cloud",
        "The outcome of a commit is unknown and nothing is listed yet",
        "the attempt is kept, and looked for again before it is repeated",
        "1 to 60 s between looks",
    )
    def test_nothing_found_keeps_the_attempt(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        phala.fail("commit", cut_off())

        assert run(registered) == Wait(1.0, Reason.PHALA_UNREACHABLE, "cut off", failed_attempt=True)

    @pytest.mark.fault(
        "workers",
        "A worker dies between a commit and its answer",
        "the operation is found and adopted, no second commit",
        "15 s, and 1 s of sweep",
    )
    def test_it_is_found_after_a_restart(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, compose_hash: str
    ) -> None:
        assert registered.commit_token is not None
        phala.commit(VM_UUID, registered.commit_token, compose_hash, TRANSACTION)

        assert run(unanswered(registered)) == committed("op-1", ADOPTED)
        assert len(phala.commits) == 1

    @pytest.mark.fault(
        "workers",
        "A worker dies between its intent and the commit",
        "nothing is found, the commit is sent under the stored attempt",
        "15 s, and 1 s of sweep",
    )
    def test_an_attempt_that_never_arrived_goes_on_under_its_name(
        self, run: partial[Outcome], registered: ChangeRequest, intents: RecordingRequestIntents
    ) -> None:
        assert run(unanswered(registered)) == committed("op-1")
        assert intents.recorded == [{"commit_attempt_id": "attempt-0", "commit_attempted_at": NOW}]

    def test_an_operation_with_another_hash_is_not_ours(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        phala.history.append(Operation("op-x", OperationStatus.IN_PROGRESS, NOW, OTHER_HASH, None))

        assert run(unanswered(registered)) == committed("op-2")

    @pytest.mark.parametrize(("seconds", "ours"), [(600, True), (900, True), (901, False)])
    def test_an_operation_older_than_the_token_is_not_ours_but_clocks_differ(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, seconds: int, *, ours: bool
    ) -> None:
        earlier = NOW - timedelta(seconds=seconds)
        phala.history.append(Operation("op-x", OperationStatus.COMPLETED, earlier, registered.compose_hash, None))

        assert run(unanswered(registered)) == (committed("op-x", ADOPTED) if ours else committed("op-2"))

    def test_an_operation_that_failed_just_before_the_token_is_of_an_earlier_request(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        earlier = NOW - timedelta(seconds=4)
        phala.history.append(Operation("op-x", OperationStatus.FAILED, earlier, registered.compose_hash, "no"))

        assert run(unanswered(registered)) == committed("op-2")

    def test_a_dead_token_and_a_failed_operation_since_is_the_commit_that_failed(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, clock: FixedClock
    ) -> None:
        """The commit was taken, its run failed: committing again would run once more what the owners saw fail."""
        phala.history.append(Operation("op-x", OperationStatus.FAILED, NOW, registered.compose_hash, "no space left"))
        phala.fail("commit", TokenDead("466"))

        assert run(unanswered(registered)) == committed("op-x", ADOPTED)
        followed = track(replace(registered, state=State.COMMITTED, correlation_id="op-x"), phala=phala, clock=clock)
        assert isinstance(followed, Advance)
        assert (followed.to, followed.reason) == (State.FAILED, Reason.OPERATION_FAILED)
        assert "prepare" not in phala.calls

    def test_a_link_used_before_the_request_was_prepared_is_ours(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        minted = NOW - timedelta(days=1)
        clicked = minted + timedelta(hours=1)
        phala.history.append(Operation("op-x", OperationStatus.COMPLETED, clicked, registered.compose_hash, None))
        handed_in = replace(
            registered, prepare_attempted_at=None, patch=None, token_expires_at=minted + timedelta(days=14)
        )

        assert run(unanswered(handed_in)) == committed("op-x", ADOPTED)

    def test_a_look_that_fails_leaves_the_attempt_stored(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        phala.fail("commit", cut_off())
        phala.fail("operations", Unauthorized("no access"))

        with pytest.raises(Unreachable) as caught:
            run(registered)

        assert caught.value.reason is Reason.PHALA_UNAUTHORIZED

    def test_a_connection_refused_sent_nothing(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        phala.fail("commit", Unreachable("connection refused", reason=Reason.PHALA_UNREACHABLE, retry_after=7))

        assert run(registered) == Wait(
            7.0, Reason.PHALA_UNREACHABLE, "connection refused", {"commit_attempt_id": None}, failed_attempt=True
        )

    def test_a_connection_refused_does_not_settle_an_earlier_attempt(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        phala.fail("commit", Unreachable("connection refused", reason=Reason.PHALA_UNREACHABLE))

        outcome = run(unanswered(registered))

        assert isinstance(outcome, Wait)
        assert outcome.facts == {}


class TestLag:
    def test_the_first_refusal_opens_the_window(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        phala.fail("commit", NotVisibleYet("467"))

        assert run(registered) == Wait(
            1.0,
            Reason.PHALA_LAGS,
            "467",
            {"commit_attempt_id": None, "commit_refused_since": NOW},
            failed_attempt=True,
        )

    def test_waiting_never_passes_the_end_of_the_window(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, clock: FixedClock
    ) -> None:
        clock.advance(seconds=590)
        phala.fail("commit", NotVisibleYet("467"))

        outcome = run(replace(registered, commit_refused_since=NOW, attempts=9))

        assert isinstance(outcome, Wait)
        assert outcome.seconds == 10.0
        assert outcome.facts["commit_refused_since"] == NOW

    @pytest.mark.fault(
        "Phala Cloud",
        "Its node lags for longer",
        "`already-registered` is sent once instead of the transaction",
        "10 min",
    )
    def test_after_the_window_the_sentinel_is_tried_once(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, clock: FixedClock
    ) -> None:
        clock.advance(seconds=600)

        assert run(replace(registered, commit_refused_since=NOW)) == committed("op-1")
        assert phala.commits[0][2] == ALREADY_REGISTERED

    @pytest.mark.fault(
        "Phala Cloud", "It refuses that too", "`failed` with `commit_refused` and Phala Cloud's words", "the same step"
    )
    def test_a_refusal_of_the_sentinel_ends_it(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, clock: FixedClock
    ) -> None:
        clock.advance(seconds=600)
        phala.fail("commit", NotVisibleYet("468"))

        assert_ended(run(replace(registered, commit_refused_since=NOW)), State.FAILED, Reason.COMMIT_REFUSED)


class TestOtherAnswers:
    @pytest.mark.fault(
        "Phala Cloud",
        "409: another operation of the CVM runs",
        "the request waits with `phala_busy`",
        "1 to 60 s between tries",
    )
    def test_busy_is_waited_for(self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala) -> None:
        phala.fail("commit", Busy("another operation runs"))

        assert run(registered) == Wait(
            1.0, Reason.PHALA_BUSY, "another operation runs", {"commit_attempt_id": None}, failed_attempt=True
        )

    def test_tries_in_a_row_are_further_and_further_apart(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        phala.fail("commit", Busy("another operation runs"))

        outcome = run(replace(registered, attempts=3))

        assert isinstance(outcome, Wait)
        assert outcome.seconds == 10.0

    def test_busy_with_our_own_operation_is_success(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        phala.fail("commit", Busy("another operation runs"), after_effect=True)

        assert run(registered) == committed("op-1", ADOPTED)

    def test_a_deterministic_no_ends_it(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        phala.fail("commit", Refused("node is gone"))

        outcome = run(registered)

        assert_ended(outcome, State.FAILED, Reason.COMMIT_REFUSED)
        assert isinstance(outcome, Advance)
        assert outcome.detail == "node is gone"

    def test_a_no_after_an_unanswered_attempt_that_landed_is_success(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        phala.fail("commit", Refused("already updating"), after_effect=True)

        assert run(unanswered(registered)) == committed("op-1", ADOPTED)

    def test_a_refused_key_does_not_settle_an_earlier_attempt(
        self, run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
    ) -> None:
        phala.fail("commit", Unauthorized("no access"), after_effect=True)

        assert run(unanswered(registered)) == committed("op-1", ADOPTED)

    def test_a_refused_key_waits_for_another_and_leaves_no_attempt_to_be_looked_for(
        self,
        run: partial[Outcome],
        registered: ChangeRequest,
        phala: FakePhala,
        intents: RecordingRequestIntents,
    ) -> None:
        phala.fail("commit", Unauthorized("no access"))

        with pytest.raises(Unauthorized):
            run(registered)
        assert [facts["commit_attempt_id"] for facts in intents.recorded] == ["attempt-1", None]
