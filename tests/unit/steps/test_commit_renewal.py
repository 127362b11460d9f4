"""Commit tokens that are dead, and their renewal."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
from pydantic import SecretStr

from service.domain.chain import FactKind
from service.domain.errors import (
    Refused,
    TokenDead,
)
from service.domain.outcomes import Advance, Notice, Outcome, Wait
from service.domain.phala_facts import AppliedAtOnce, Prepared
from service.domain.reasons import Reason
from service.domain.snapshots import ChangeRequest
from service.domain.states import State
from service.steps.commit import ALREADY_REGISTERED, commit
from tests.support.builders import NOW, VM_UUID
from tests.support.committing import ADOPTED, assert_ended, committed, cut_off, unanswered
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


@pytest.mark.fault(
    "people",
    "Somebody clicked the commit link",
    "the operation is found and adopted, no second commit",
    "the same step",
)
def test_a_person_who_clicked_the_link_is_found(
    run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, compose_hash: str
) -> None:
    assert registered.commit_token is not None
    phala.commit(VM_UUID, registered.commit_token, compose_hash, ALREADY_REGISTERED)

    assert run(registered) == committed("op-1", ADOPTED)


@pytest.mark.fault(
    "Phala Cloud",
    "466: the token is dead, the patch is there",
    "prepared again, same hash, committed: the approval stands",
    "the same step",
)
def test_the_same_patch_gives_a_fresh_one(
    run: partial[Outcome],
    registered: ChangeRequest,
    phala: FakePhala,
    clock: FixedClock,
    intents: RecordingRequestIntents,
) -> None:
    clock.advance(minutes=2)
    stale = replace(registered, commit_token=SecretStr("00000000-0000-4000-8000-00000000dead"))

    outcome = run(stale)

    expires_at = clock.now() + timedelta(days=14)
    assert outcome == committed("op-1")
    assert phala.calls == ["commit", "operations", "prepare", "commit"]
    fresh = phala.commits[0][0]
    assert intents.recorded == [
        {"commit_attempt_id": "attempt-1", "commit_attempted_at": clock.now()},
        {"prepare_attempted_at": clock.now(), "refresh_attempted_at": clock.now(), "commit_attempt_id": None},
        {"commit_attempt_id": "attempt-2", "commit_attempted_at": clock.now()},
    ]
    (refreshed,) = intents.published
    assert (refreshed.facts["commit_token"], refreshed.facts["token_expires_at"]) == (fresh, expires_at)
    assert refreshed.notices == ((Notice.TOKEN_REFRESHED, {"token_expires_at": expires_at.isoformat()}),)


def test_an_ended_one_is_renewed_without_trying_it(
    run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, clock: FixedClock
) -> None:
    clock.advance(days=14)

    outcome = run(registered)

    assert isinstance(outcome, Advance)
    assert outcome.to is State.COMMITTED
    assert phala.calls == ["prepare", "commit"]


def test_a_missing_one_is_renewed(run: partial[Outcome], registered: ChangeRequest) -> None:
    outcome = run(replace(registered, commit_token=None))

    assert isinstance(outcome, Advance)
    assert outcome.to is State.COMMITTED


@pytest.mark.fault(
    "Phala Cloud",
    "Prepared again, the hash is another",
    "`failed` with `compose_drift`, nothing is committed",
    "the same step",
)
def test_another_hash_is_drift(run: partial[Outcome], registered: ChangeRequest, phala: FakePhala) -> None:
    phala.fail("commit", TokenDead("466"))
    phala.hash_salt = "a new server-side default"

    assert_ended(run(registered), State.FAILED, Reason.COMPOSE_DRIFT)
    assert phala.commits == []


@pytest.mark.fault(
    "Phala Cloud", "466: the token is dead, without a patch", "`failed` with `token_refused`", "the same step"
)
def test_without_a_patch_it_is_refused(run: partial[Outcome], registered: ChangeRequest, phala: FakePhala) -> None:
    phala.fail("commit", TokenDead("466"))

    assert_ended(run(replace(registered, patch=None)), State.FAILED, Reason.TOKEN_REFUSED)
    assert "prepare" not in phala.calls


def test_a_fresh_one_that_is_refused_too_ends_it(
    run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
) -> None:
    phala.fail("commit", TokenDead("466"), TokenDead("466 again"))

    assert_ended(run(registered), State.FAILED, Reason.TOKEN_REFUSED)
    assert phala.calls.count("prepare") == 1


def test_a_fresh_one_whose_answer_was_lost_is_found(
    run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
) -> None:
    phala.fail("commit", TokenDead("466"))
    phala.fail("commit", TokenDead("466"), after_effect=True)

    outcome = run(registered)

    assert isinstance(outcome, Advance)
    assert outcome.facts["correlation_id"] == "op-1"


@pytest.mark.fault(
    "Phala Cloud",
    "466 after an unanswered commit",
    "first looked for: the token may be spent by that very commit",
    "60 s",
)
def test_an_unanswered_attempt_may_have_spent_it(
    run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, clock: FixedClock
) -> None:
    phala.fail("commit", TokenDead("466"))
    clock.advance(seconds=59)

    outcome = run(unanswered(registered))

    assert isinstance(outcome, Wait)
    assert outcome.failed_attempt
    assert outcome.facts == {"commit_attempted_at": NOW}  # the refused repeat did not land: the wait gets no longer
    assert "prepare" not in phala.calls


def test_an_unanswered_repeat_has_a_minute_of_its_own(
    run: partial[Outcome],
    registered: ChangeRequest,
    phala: FakePhala,
    intents: RecordingRequestIntents,
    clock: FixedClock,
) -> None:
    clock.advance(seconds=55)
    phala.fail("commit", cut_off())
    assert isinstance(run(unanswered(registered)), Wait)
    repeated_at = intents.all_facts.get("commit_attempted_at")
    assert repeated_at == clock.now()

    clock.advance(seconds=10)
    phala.fail("commit", TokenDead("466"))
    outcome = run(unanswered(registered, commit_attempted_at=repeated_at))

    assert isinstance(outcome, Wait)
    assert "prepare" not in phala.calls


def test_an_unanswered_attempt_is_settled_after_a_minute(
    run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, clock: FixedClock
) -> None:
    phala.fail("commit", TokenDead("466"))
    clock.advance(seconds=60)

    outcome = run(unanswered(registered))

    assert isinstance(outcome, Advance)
    assert outcome.to is State.COMMITTED
    assert "prepare" in phala.calls


def test_a_wish_forbids_to_kill_a_newer_token(
    run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, clock: FixedClock
) -> None:
    phala.fail("commit", TokenDead("466"))
    clock.advance(minutes=2)

    outcome = run(unanswered(registered, cancel_requested_at=NOW))

    assert_ended(outcome, State.CANCELLED, Reason.CANCELLED_BY_USER)
    assert "prepare" not in phala.calls


def test_an_ended_one_without_a_patch_after_an_unanswered_attempt(
    run: partial[Outcome], registered: ChangeRequest, clock: FixedClock
) -> None:
    clock.advance(days=14)

    assert_ended(run(unanswered(registered, patch=None)), State.EXPIRED, Reason.TOKEN_EXPIRED)


def test_a_renewal_applied_at_once_raises_an_alert(
    run: partial[Outcome], registered: ChangeRequest, phala: FakePhala
) -> None:
    phala.fail("commit", TokenDead("466"))
    phala.info = replace(phala.info, app_contract=None)

    outcome = run(registered)

    assert isinstance(outcome, Advance)
    assert outcome.to is State.COMMITTED
    assert [notice for notice, _ in outcome.notices] == [Notice.ALERT]


def test_a_refused_renewal_ends_it(run: partial[Outcome], registered: ChangeRequest, phala: FakePhala) -> None:
    phala.fail("commit", TokenDead("466"))
    phala.fail("prepare", Refused("image not available"))

    assert_ended(run(registered), State.FAILED, Reason.PREPARE_REFUSED)


def test_the_allowlist_is_read_again_after_a_renewal(
    run: partial[Outcome], registered: ChangeRequest, phala: FakePhala, chain: FakeChain
) -> None:
    class Withdrawn(FakePhala):
        def prepare(self, vm_uuid: str, patch: Mapping[str, Any]) -> Prepared | AppliedAtOnce:
            chain.mine((FactKind.HASH_REMOVED, registered.compose_hash or ""))
            return super().prepare(vm_uuid, patch)

    outcome = run(replace(registered, commit_token=None), phala=Withdrawn(phala.clock))

    assert isinstance(outcome, Wait)
    assert outcome.reason is Reason.WAITING_FOR_FINALITY
