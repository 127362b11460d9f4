"""What goes on beside the state: prepares elsewhere, renewal of the token, the countdown."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from service.domain.errors import Busy, Nonsense, Refused, Unauthorized, Unreachable
from service.domain.outcomes import Advance, Notice, Wait
from service.domain.phala_facts import Operation, Prepared
from service.domain.prepares import TOKEN_LIFETIME, HeardPrepare, Hearing, Verdict
from service.domain.reasons import Reason
from service.domain.snapshots import ChangeRequest, Intake
from service.domain.states import State
from service.steps.commit import ALREADY_REGISTERED
from service.steps.upkeep import Upkeep, upkeep
from tests.support.builders import APP, CHAIN_ID, DEVICE, NOW, OTHER_HASH, PATCH, VM_UUID, change_request
from tests.support.committing import ADOPTED, assert_ended, committed
from tests.support.fake_phala import FakePhala
from tests.support.fakes import FixedClock, RecordingRequestIntents

Run = Callable[[ChangeRequest], Upkeep]
UNREACHABLE = Unreachable("503", reason=Reason.PHALA_UNREACHABLE)
WAITING = [State.PREPARED, State.PROPOSED, State.EXECUTED]


@pytest.fixture
def run(phala: FakePhala, intents: RecordingRequestIntents, clock: FixedClock) -> Run:
    return lambda request: upkeep(request, phala=lambda: phala, intents=intents, clock=clock)


@pytest.fixture
def proposed(phala: FakePhala) -> ChangeRequest:
    return held(phala)


def held(phala: FakePhala, state: State = State.PROPOSED, **overrides: Any) -> ChangeRequest:
    """A request that holds the live token of its patch."""
    answer = phala.prepare(VM_UUID, PATCH)
    phala.calls.clear()
    assert isinstance(answer, Prepared)
    columns = {"compose_hash": answer.compose_hash, "commit_token": answer.commit_token, **overrides}
    return change_request(state, **columns)


def heard(request: ChangeRequest, after: timedelta = timedelta(hours=1), **overrides: Any) -> HeardPrepare:
    values = HeardPrepare(
        id="inb_1",
        chain_id=CHAIN_ID,
        app_contract=APP,
        device_id=DEVICE,
        compose_hash=request.compose_hash or "",
        token=SecretStr("fresh-elsewhere"),
        expires_at=NOW + after + TOKEN_LIFETIME,
    )
    return replace(values, **overrides)


def notices(intents: RecordingRequestIntents) -> list[Notice]:
    return [notice for news in intents.published for notice, _ in news.notices]


class TestHearing:
    def test_silence_changes_nothing(
        self, run: Run, proposed: ChangeRequest, phala: FakePhala, intents: RecordingRequestIntents
    ) -> None:
        assert run(proposed) == Upkeep(proposed)
        assert (phala.calls, intents.recorded, intents.published) == ([], [], [])

    def test_an_echo_tells_when_the_token_ends(
        self, run: Run, proposed: ChangeRequest, intents: RecordingRequestIntents
    ) -> None:
        echo = heard(proposed, timedelta(seconds=-3), ours=True, current=True)
        intents.hearing = Hearing((echo,), echo.minted_at)

        kept = run(proposed)

        assert kept.request.token_expires_at == echo.expires_at
        assert [(news.facts, news.heard) for news in intents.published] == [
            ({"token_expires_at": echo.expires_at}, {"inb_1": Verdict.ECHO})
        ]
        assert notices(intents) == []

    def test_the_same_update_later_is_adopted(
        self, run: Run, proposed: ChangeRequest, intents: RecordingRequestIntents
    ) -> None:
        fresh = heard(proposed)
        intents.hearing = Hearing((heard(proposed, timedelta(minutes=10), id="inb_0"), fresh), NOW)

        kept = run(proposed)

        assert (kept.request.commit_token, kept.request.token_expires_at) == (fresh.token, fresh.expires_at)
        assert [news.heard for news in intents.published] == [{"inb_0": Verdict.IGNORE}, {"inb_1": Verdict.ADOPT}]
        assert intents.all_facts["commit_token"] == "fresh-elsewhere"
        assert notices(intents) == [Notice.TOKEN_REFRESHED]

    @pytest.mark.parametrize("state", [*WAITING, State.REGISTERED])
    def test_another_update_later_supersedes_and_is_left_undecided(
        self, run: Run, phala: FakePhala, intents: RecordingRequestIntents, state: State
    ) -> None:
        request = held(phala, state)
        intents.hearing = Hearing((heard(request, compose_hash=OTHER_HASH),), NOW)

        end = run(request).end

        assert end is not None
        assert_ended(end, State.SUPERSEDED, Reason.SUPERSEDED_BY_PREPARE)
        assert end.detail is not None
        assert OTHER_HASH in end.detail
        assert intents.published == []

    def test_what_may_be_newer_is_adopted_once_our_token_ended(
        self, run: Run, phala: FakePhala, intents: RecordingRequestIntents, clock: FixedClock
    ) -> None:
        request = held(phala, patch=None, intake=Intake.PREPARED)
        intents.hearing = Hearing((heard(request, timedelta(seconds=30), token=SecretStr("the other")),))
        assert run(request).request == request

        clock.advance(days=14)

        assert run(request).request.commit_token == SecretStr("the other")

    @pytest.mark.parametrize("overrides", [{"commit_attempt_id": "attempt"}, {"cancel_requested_at": NOW}])
    def test_a_commit_attempt_and_a_wish_come_first(
        self, run: Run, proposed: ChangeRequest, intents: RecordingRequestIntents, overrides: dict[str, Any]
    ) -> None:
        request = replace(proposed, state=State.REGISTERED, **overrides)
        intents.hearing = Hearing((heard(proposed, compose_hash=OTHER_HASH),), NOW)

        assert run(request) == Upkeep(request)

    @pytest.mark.parametrize("state", [State.RECEIVED, State.COMMITTED])
    def test_other_states_do_not_listen(self, run: Run, intents: RecordingRequestIntents, state: State) -> None:
        request = change_request(state)
        intents.hearing = Hearing((heard(request),))

        assert run(request) == Upkeep(request)


class TestRenewal:
    @pytest.mark.parametrize("state", WAITING)
    def test_a_token_near_its_end_is_renewed(
        self, run: Run, phala: FakePhala, intents: RecordingRequestIntents, clock: FixedClock, state: State
    ) -> None:
        request = held(phala, state)
        clock.advance(days=11)

        kept = run(request)

        assert phala.calls == ["operations", "prepare"]
        assert kept.request.token_expires_at == clock.now() + TOKEN_LIFETIME
        assert kept.request.commit_token != request.commit_token
        assert intents.recorded == [
            {"prepare_attempted_at": clock.now(), "refresh_attempted_at": clock.now(), "commit_attempt_id": None}
        ]
        assert notices(intents) == [Notice.TOKEN_REFRESHED]
        assert intents.all_facts["refresh_attempted_at"] is None

    @pytest.mark.parametrize(
        ("days", "overrides"),
        [(10.9, {}), (12, {"patch": None}), (12, {"state": State.REGISTERED}), (12, {"refresh_due_at": NOW})],
        ids=["early", "without a patch", "about to be committed", "tried just now"],
    )
    def test_otherwise_it_is_not(
        self, run: Run, proposed: ChangeRequest, phala: FakePhala, clock: FixedClock, days: float, overrides: Any
    ) -> None:
        clock.advance(days=days)
        if "refresh_due_at" in overrides:
            overrides = {"refresh_due_at": clock.now() + timedelta(seconds=1)}

        run(replace(proposed, **overrides))

        assert phala.calls == []

    @pytest.mark.parametrize("state", [*WAITING, State.REGISTERED])
    def test_a_wish_renews_it_now(self, run: Run, phala: FakePhala, state: State) -> None:
        request = held(phala, state, refresh_requested_at=NOW)

        kept = run(request)

        assert phala.calls == ["operations", "prepare"]
        assert kept.request.refresh_requested_at is None

    def test_another_hash_is_drift_whose_token_is_known_as_ours(
        self, run: Run, phala: FakePhala, intents: RecordingRequestIntents
    ) -> None:
        request = held(phala, refresh_requested_at=NOW)
        phala.hash_salt = "a new server-side default"

        end = run(request).end

        assert end is not None
        assert_ended(end, State.FAILED, Reason.COMPOSE_DRIFT)
        assert end.facts["commit_token"]
        assert intents.published == []

    @pytest.mark.parametrize("confusion", [{"device_id": "0x" + "ee" * 32}, {"chain_id": 1}])
    def test_another_device_or_chain_ends_it(self, run: Run, phala: FakePhala, confusion: dict[str, Any]) -> None:
        request = held(phala, refresh_requested_at=NOW)
        phala.confusion = confusion

        end = run(request).end

        assert end is not None
        assert_ended(end, State.FAILED, Reason.PREPARED_MISMATCH)

    @pytest.mark.parametrize("fault", [UNREACHABLE, Busy("409"), Refused("image gone"), Unauthorized("no access")])
    def test_a_fault_is_counted_and_hides_no_approval(
        self, run: Run, phala: FakePhala, intents: RecordingRequestIntents, fault: Exception
    ) -> None:
        request = held(phala, refresh_requested_at=NOW, refresh_attempts=1)
        phala.fail("prepare", fault)

        kept = run(request)

        assert kept.end is None
        assert kept.request.commit_token == request.commit_token
        facts = intents.all_facts
        assert (facts["refresh_attempts"], facts["refresh_due_at"]) == (2, NOW + timedelta(seconds=20))
        assert facts["refresh_detail"] == str(fault)
        assert kept.bound(Wait(600, Reason.WAITING_FOR_OWNERS)) == Wait(20.0, Reason.WAITING_FOR_OWNERS)
        assert kept.bound(Advance(State.EXECUTED)) == Advance(State.EXECUTED)

    def test_a_prepare_that_never_landed_is_not_pending(
        self, run: Run, phala: FakePhala, intents: RecordingRequestIntents
    ) -> None:
        request = held(phala, refresh_requested_at=NOW)
        phala.fail("prepare", UNREACHABLE)
        run(request)
        assert intents.all_facts["refresh_attempted_at"] is None

    def test_a_prepare_without_an_answer_is_pending_and_made_again(
        self, run: Run, phala: FakePhala, intents: RecordingRequestIntents, clock: FixedClock
    ) -> None:
        request = held(phala, refresh_requested_at=NOW)
        phala.fail("prepare", Nonsense("cut off", reason=Reason.PHALA_UNREACHABLE), after_effect=True)
        run(request)
        assert intents.all_facts["refresh_attempted_at"] == NOW

        clock.advance(minutes=1)
        kept = run(replace(request, refresh_attempts=1, refresh_due_at=NOW + timedelta(seconds=10)))

        assert kept.request.token_expires_at == clock.now() + TOKEN_LIFETIME
        assert intents.all_facts["refresh_attempted_at"] is None

    def test_the_echo_of_a_lost_answer_is_adopted(
        self, run: Run, phala: FakePhala, intents: RecordingRequestIntents, clock: FixedClock
    ) -> None:
        request = held(phala, refresh_requested_at=NOW, refresh_attempts=1)
        clock.advance(hours=1)
        intents.hearing = Hearing((heard(request),))

        kept = run(request)

        assert kept.request.commit_token == SecretStr("fresh-elsewhere")
        assert phala.calls == [], "the wish is served, nothing is prepared again"

    @pytest.mark.parametrize("minutes", [0, 60])
    def test_never_over_a_prepare_of_another_update_that_may_be_newer(
        self, run: Run, phala: FakePhala, intents: RecordingRequestIntents, minutes: int
    ) -> None:
        request = held(phala, refresh_requested_at=NOW)
        intents.hearing = Hearing((heard(request, timedelta(minutes=minutes), compose_hash=OTHER_HASH),))

        run(request)

        assert "prepare" not in phala.calls

    def test_nor_over_one_that_is_told_while_we_look(self, phala: FakePhala, intents: RecordingRequestIntents) -> None:
        request = held(phala, refresh_requested_at=NOW)

        class Meanwhile(FakePhala):
            def operations(self, vm_uuid: str, since: datetime) -> Sequence[Operation]:
                intents.hearing = Hearing((heard(request, compose_hash=OTHER_HASH),), NOW)
                return super().operations(vm_uuid, since)

        looking = Meanwhile(phala.clock)
        upkeep(request, phala=lambda: looking, intents=intents, clock=phala.clock)

        assert looking.calls == ["operations"]

    def test_an_earlier_prepare_without_an_answer_stays_pending(
        self, run: Run, phala: FakePhala, intents: RecordingRequestIntents, clock: FixedClock
    ) -> None:
        request = held(phala, refresh_requested_at=NOW, refresh_attempted_at=NOW, refresh_attempts=1)
        clock.advance(minutes=1)
        phala.fail("prepare", UNREACHABLE)

        run(request)

        assert [facts.get("refresh_attempted_at", NOW) for facts in intents.recorded] == [NOW] * 3

    def test_a_link_that_was_used_is_found_first(self, run: Run, phala: FakePhala) -> None:
        request = held(phala, State.EXECUTED, refresh_requested_at=NOW)
        assert request.commit_token is not None
        phala.commit(VM_UUID, request.commit_token, request.compose_hash or "", ALREADY_REGISTERED)

        assert run(request).end == committed("op-1", ADOPTED)
        assert "prepare" not in phala.calls

    def test_what_is_applied_at_once_runs(self, run: Run, phala: FakePhala) -> None:
        request = held(phala, refresh_requested_at=NOW)
        phala.unchanged = True

        end = run(request).end

        assert end is not None
        assert (end.to, end.facts["correlation_id"]) == (State.COMMITTED, "op-1")
        assert [notice for notice, _ in end.notices] == [Notice.ALERT]


class TestCountdown:
    def test_without_a_patch_people_are_asked_for_a_new_prepare(
        self, run: Run, phala: FakePhala, intents: RecordingRequestIntents, clock: FixedClock
    ) -> None:
        request = held(phala, patch=None, intake=Intake.PREPARED)
        clock.advance(days=11)

        run(request)

        (news,) = intents.published
        assert news.facts == {"token_told": 3 * 86400}
        ((notice, data),) = news.notices
        assert notice is Notice.EXPIRING
        assert (data["what"], data["ends_at"]) == ("token", (NOW + TOKEN_LIFETIME).isoformat())
        assert "POST .../refresh" in str(data["advice"])

    def test_what_was_told_is_not_told_again(
        self, run: Run, phala: FakePhala, intents: RecordingRequestIntents, clock: FixedClock
    ) -> None:
        clock.advance(days=11)
        run(held(phala, patch=None, token_told=3 * 86400))
        assert intents.published == []

    def test_with_a_patch_it_is_told_only_if_it_could_not_be_renewed(
        self, run: Run, proposed: ChangeRequest, phala: FakePhala, intents: RecordingRequestIntents, clock: FixedClock
    ) -> None:
        clock.advance(days=11)
        phala.fail("prepare", UNREACHABLE)

        run(proposed)

        assert notices(intents) == [Notice.EXPIRING]
        ((_, data),) = intents.published[0].notices
        assert str(data["advice"]).startswith("Nothing to do")

    def test_the_deadline_is_counted_down(
        self, run: Run, phala: FakePhala, intents: RecordingRequestIntents, clock: FixedClock
    ) -> None:
        request = held(phala, token_expires_at=NOW + timedelta(days=40))
        clock.advance(days=29, hours=20)

        run(request)

        (news,) = intents.published
        assert news.facts == {"deadline_told": 6 * 3600}
        assert [data["what"] for _, data in news.notices] == ["deadline"]

    def test_a_short_deadline_is_known_to_be_short(
        self, run: Run, phala: FakePhala, intents: RecordingRequestIntents
    ) -> None:
        run(held(phala, deadline_at=NOW + timedelta(hours=1)))
        assert intents.published == []

    @pytest.mark.parametrize("overrides", [{"deadline_at": NOW}, {"token_expires_at": NOW, "patch": None}])
    def test_what_has_ended_is_not_counted_down(
        self, run: Run, phala: FakePhala, intents: RecordingRequestIntents, overrides: dict[str, Any]
    ) -> None:
        run(held(phala, **overrides))
        assert intents.published == []
