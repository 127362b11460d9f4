"""A dead commit token, and prepares elsewhere that explain it."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
from pydantic import SecretStr

from service.domain.errors import TokenDead
from service.domain.outcomes import Notice, Outcome
from service.domain.phala_facts import Operation, OperationStatus, Prepared
from service.domain.prepares import TOKEN_LIFETIME, HeardPrepare, Hearing, Verdict
from service.domain.reasons import Reason
from service.domain.snapshots import ChangeRequest, Intake
from service.domain.states import State
from service.steps.commit import commit
from tests.support.builders import APP, CHAIN_ID, DEVICE, NOW, OTHER_HASH, PATCH, VM_UUID
from tests.support.committing import ADOPTED, assert_ended, committed, unanswered
from tests.support.fake_chain import FakeChain
from tests.support.fake_phala import FakePhala
from tests.support.fakes import FixedClock, RecordingRequestIntents

LATER = timedelta(minutes=5)


@pytest.fixture
def run(
    phala: FakePhala, chains: dict[int, FakeChain], intents: RecordingRequestIntents, clock: FixedClock
) -> partial[Outcome]:
    numbers = count(1)
    return partial(
        commit, phala=phala, chains=chains, intents=intents, clock=clock, new_id=lambda: f"attempt-{next(numbers)}"
    )


def elsewhere(phala: FakePhala, request: ChangeRequest, after: timedelta = LATER, **other: Any) -> HeardPrepare:
    """A prepare of the same patch by somebody else, which makes our token a dead one."""
    answer = phala.prepare(VM_UUID, PATCH)
    phala.calls.clear()
    assert isinstance(answer, Prepared)
    heard = HeardPrepare(
        id="inb_1",
        chain_id=CHAIN_ID,
        app_contract=APP,
        device_id=DEVICE,
        compose_hash=request.compose_hash or "",
        token=answer.commit_token,
        expires_at=NOW + after + TOKEN_LIFETIME,
    )
    return replace(heard, **other)


def test_a_token_that_came_while_the_commit_was_on_its_way_is_taken(
    run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, intents: RecordingRequestIntents
) -> None:
    fresh = elsewhere(phala, registered)
    intents.hearing = Hearing((fresh,))

    assert run(registered) == committed("op-1")

    assert phala.calls == ["commit", "operations", "commit"]
    assert phala.commits[0][0] == fresh.token.get_secret_value()
    (news,) = intents.published
    assert news.heard == {"inb_1": Verdict.ADOPT}
    assert [notice for notice, _ in news.notices] == [Notice.TOKEN_REFRESHED]


@pytest.mark.fault(
    "Phala Cloud",
    "466: a newer prepare of another update killed the token",
    "`superseded`; the newer one's token is left alone",
    "the same step",
)
@pytest.mark.parametrize("after", [LATER, timedelta(0)])
def test_a_newer_prepare_of_another_update_is_not_killed(
    run: partial[Outcome],
    registered: ChangeRequest,
    phala: FakePhala,
    intents: RecordingRequestIntents,
    after: timedelta,
) -> None:
    """Also one that only may be newer: that our token is dead says so."""
    intents.hearing = Hearing((elsewhere(phala, registered, after, compose_hash=OTHER_HASH),))

    outcome = run(registered)

    assert_ended(outcome, State.SUPERSEDED, Reason.SUPERSEDED_BY_PREPARE)
    assert "prepare" not in phala.calls
    assert intents.published == [], "the newer one is left for a change request of its own"


def test_an_ended_token_is_not_renewed_over_a_newer_prepare(
    run: partial[Outcome],
    registered: ChangeRequest,
    phala: FakePhala,
    intents: RecordingRequestIntents,
    clock: FixedClock,
) -> None:
    clock.advance(days=14)
    intents.hearing = Hearing((elsewhere(phala, registered, timedelta(days=10), compose_hash=OTHER_HASH),))

    assert_ended(run(registered), State.SUPERSEDED, Reason.SUPERSEDED_BY_PREPARE)
    assert phala.calls == []


def test_a_taken_token_that_is_dead_too_gives_way_to_one_of_our_own(
    run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, intents: RecordingRequestIntents
) -> None:
    intents.hearing = Hearing((replace(elsewhere(phala, registered), token=SecretStr("dead")),))

    assert run(registered) == committed("op-1")
    assert phala.calls == ["commit", "operations", "commit", "operations", "prepare", "commit"]


def test_a_taken_token_spares_a_request_without_a_patch(
    run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, intents: RecordingRequestIntents
) -> None:
    intents.hearing = Hearing((elsewhere(phala, registered),))

    assert run(replace(registered, patch=None)) == committed("op-1")


def test_a_token_that_was_handed_in_while_the_commit_was_on_its_way_is_taken(
    run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, intents: RecordingRequestIntents
) -> None:
    fresh = elsewhere(phala, registered).token
    intents.hearing = Hearing(token=fresh)

    assert run(replace(registered, patch=None)) == committed("op-1")
    assert phala.commits[0][0] == fresh.get_secret_value()


def test_the_token_that_is_dead_is_not_tried_again(
    run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, intents: RecordingRequestIntents
) -> None:
    phala.fail("commit", TokenDead("466"))
    intents.hearing = Hearing(token=registered.commit_token)

    assert_ended(run(replace(registered, patch=None)), State.FAILED, Reason.TOKEN_REFUSED)
    assert phala.calls == ["commit", "operations"]


def test_an_unanswered_attempt_is_settled_before_anything_else_is_believed(
    run: partial[Outcome],
    registered: ChangeRequest,
    phala: FakePhala,
    intents: RecordingRequestIntents,
    clock: FixedClock,
) -> None:
    intents.hearing = Hearing((elsewhere(phala, registered, compose_hash=OTHER_HASH),))
    clock.advance(seconds=59)
    waiting = run(unanswered(registered))
    assert waiting.reason is Reason.PHALA_UNREACHABLE

    clock.advance(seconds=1)

    assert_ended(run(unanswered(registered)), State.SUPERSEDED, Reason.SUPERSEDED_BY_PREPARE)


class TestALinkUsedBeforeTheTokenWasHandedIn:
    """When the token was minted is not known: what counts is what the CVM was given last."""

    CLICKED = NOW - timedelta(hours=1)

    @pytest.fixture
    def handed_in(self, registered: ChangeRequest, phala: FakePhala) -> ChangeRequest:
        phala.fail("commit", TokenDead("466"))
        return replace(registered, intake=Intake.PREPARED, patch=None, prepare_attempted_at=None)

    @staticmethod
    def operation(request: ChangeRequest, name: str = "clicked", **fields: Any) -> Operation:
        clicked = TestALinkUsedBeforeTheTokenWasHandedIn.CLICKED
        found = Operation(name, OperationStatus.COMPLETED, clicked, request.compose_hash, None)
        return replace(found, **fields)

    def test_is_found(self, run: partial[Outcome], handed_in: ChangeRequest, phala: FakePhala) -> None:
        restart = self.operation(handed_in, "restart", started_at=NOW - timedelta(minutes=5), compose_hash=None)
        phala.history[:] = [self.operation(handed_in), restart]

        assert run(handed_in) == committed("clicked", ADOPTED)

    @pytest.mark.parametrize(
        "fields", [{"started_at": NOW - timedelta(days=15)}, {"status": OperationStatus.FAILED}], ids=["old", "failed"]
    )
    def test_but_not_an_operation_that_cannot_be_it(
        self, run: partial[Outcome], handed_in: ChangeRequest, phala: FakePhala, fields: dict[str, Any]
    ) -> None:
        phala.history[:] = [self.operation(handed_in, **fields)]

        assert_ended(run(handed_in), State.FAILED, Reason.TOKEN_REFUSED)

    def test_nor_one_after_which_the_cvm_got_another_hash(
        self, run: partial[Outcome], handed_in: ChangeRequest, phala: FakePhala
    ) -> None:
        since = self.operation(handed_in, "since", started_at=NOW - timedelta(minutes=5), compose_hash=OTHER_HASH)
        phala.history[:] = [self.operation(handed_in), since]

        assert_ended(run(handed_in), State.FAILED, Reason.TOKEN_REFUSED)

    def test_nor_one_before_a_prepare_of_our_own(
        self, run: partial[Outcome], handed_in: ChangeRequest, phala: FakePhala
    ) -> None:
        phala.history[:] = [self.operation(handed_in)]

        outcome = run(replace(handed_in, intake=Intake.PATCH))

        assert_ended(outcome, State.FAILED, Reason.TOKEN_REFUSED)
