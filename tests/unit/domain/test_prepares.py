"""What a prepare that was heard of means, by who made it, when, and of what."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from service.domain.prepares import (
    TOKEN_LIFETIME,
    HeardPrepare,
    Hearing,
    KnownPrepares,
    Verdict,
    judge,
    judge_newcomer,
    newest_elsewhere,
)
from service.domain.snapshots import Intake
from service.domain.states import State
from tests.support.builders import APP, CHAIN_ID, COMPOSE_HASH, DEVICE, NOW, OTHER_HASH, change_request

SECOND = timedelta(seconds=1)
REQUEST = change_request(State.PROPOSED)  # its token was minted at NOW, by our clock


def heard(minted_at: datetime = NOW, **overrides: Any) -> HeardPrepare:
    values = HeardPrepare(
        id="inb_1",
        chain_id=CHAIN_ID,
        app_contract=APP,
        device_id=DEVICE,
        compose_hash=COMPOSE_HASH,
        token=SecretStr("another-token"),
        expires_at=minted_at + TOKEN_LIFETIME,
    )
    return replace(values, **overrides)


OTHERS = [{"compose_hash": OTHER_HASH}, {"device_id": "0x" + "ee" * 32}, {"app_contract": "0x" + "77" * 20}]


@pytest.mark.parametrize("minutes", [-60, 0, 60])
@pytest.mark.parametrize("other", [{}, *OTHERS])
def test_our_own_is_an_echo_whenever_it_comes(minutes: int, other: dict[str, Any]) -> None:
    echo = heard(NOW + timedelta(minutes=minutes), ours=True, **other)
    assert judge(REQUEST, echo, None) is Verdict.ECHO
    assert judge_newcomer(echo, KnownPrepares(None, ()), NOW) is Verdict.ECHO


@pytest.mark.parametrize(
    ("after", "same", "other"),
    [
        (-SECOND, Verdict.IGNORE, Verdict.IGNORE),
        (0 * SECOND, Verdict.WAIT, Verdict.WAIT),
        (SECOND, Verdict.ADOPT, Verdict.SUPERSEDE),
    ],
)
def test_phala_clouds_own_times_are_exact(after: timedelta, same: Verdict, other: Verdict) -> None:
    minted_at = NOW + timedelta(minutes=3)
    assert judge(REQUEST, heard(minted_at + after), minted_at) is same
    for difference in OTHERS:
        assert judge(REQUEST, heard(minted_at + after, **difference), minted_at) is other


@pytest.mark.parametrize(
    ("seconds", "same", "other"),
    [
        (-61, Verdict.IGNORE, Verdict.IGNORE),
        (-60, Verdict.WAIT, Verdict.WAIT),
        (60, Verdict.WAIT, Verdict.WAIT),
        (61, Verdict.ADOPT, Verdict.SUPERSEDE),
    ],
)
def test_the_time_that_we_noted_is_in_doubt_by_a_minute(seconds: int, same: Verdict, other: Verdict) -> None:
    moment = NOW + timedelta(seconds=seconds)
    assert judge(REQUEST, heard(moment), None) is same
    assert judge(REQUEST, heard(moment, compose_hash=OTHER_HASH), None) is other


def test_a_token_handed_in_without_its_time_can_be_as_old_as_tokens_get() -> None:
    handed_in = replace(REQUEST, intake=Intake.PREPARED)
    between = NOW - timedelta(days=13)
    assert judge(handed_in, heard(between, compose_hash=OTHER_HASH), None) is Verdict.WAIT
    assert judge(handed_in, heard(NOW - timedelta(days=15)), None) is Verdict.IGNORE
    assert judge(replace(REQUEST, intake=Intake.WEBHOOK), heard(between), None) is Verdict.IGNORE


@pytest.mark.parametrize("compose_hash", [COMPOSE_HASH, OTHER_HASH])
def test_until_its_own_prepare_is_applied_a_request_cannot_tell(compose_hash: str) -> None:
    received = change_request(State.RECEIVED, prepare_attempted_at=NOW)
    assert judge(received, heard(NOW + timedelta(hours=1), compose_hash=compose_hash), None) is Verdict.WAIT


class TestTheNewestElsewhere:
    def test_the_last_one_counts(self) -> None:
        other = heard(NOW + timedelta(hours=1), id="inb_other", compose_hash=OTHER_HASH)
        back = heard(NOW + timedelta(hours=2), id="inb_back")
        assert newest_elsewhere(REQUEST, Hearing((other, back), NOW)) == back
        assert newest_elsewhere(REQUEST, Hearing((other,), NOW)) == other

    def test_ours_and_older_ones_do_not(self) -> None:
        echo = heard(NOW + timedelta(hours=1), ours=True)
        assert newest_elsewhere(REQUEST, Hearing((echo, heard(NOW - timedelta(hours=1))), NOW)) is None

    def test_what_is_in_doubt_counts_once_our_token_is_dead(self) -> None:
        in_doubt = heard(NOW + SECOND, compose_hash=OTHER_HASH)
        assert newest_elsewhere(REQUEST, Hearing((in_doubt,))) is None
        assert newest_elsewhere(REQUEST, Hearing((in_doubt,)), token_dead=True) == in_doubt


class TestNewcomers:
    def test_of_a_cvm_that_nobody_holds(self) -> None:
        assert judge_newcomer(heard(), KnownPrepares(None, ()), NOW) is Verdict.NEW
        assert judge_newcomer(heard(), KnownPrepares(NOW - SECOND, ()), NOW) is Verdict.NEW

    def test_with_a_dead_token(self) -> None:
        assert judge_newcomer(heard(), KnownPrepares(NOW + SECOND, ()), NOW) is Verdict.IGNORE
        assert judge_newcomer(heard(), KnownPrepares(None, ()), NOW + TOKEN_LIFETIME) is Verdict.IGNORE

    @pytest.mark.parametrize(("minutes", "verdict"), [(-2, Verdict.NEW), (5, Verdict.IGNORE), (12, Verdict.NEW)])
    def test_that_may_be_our_own_without_an_answer(self, minutes: int, verdict: Verdict) -> None:
        known = KnownPrepares(None, ((NOW, NOW + timedelta(minutes=10)),))
        moment = NOW + timedelta(minutes=minutes)
        assert judge_newcomer(heard(moment), known, moment) is verdict
