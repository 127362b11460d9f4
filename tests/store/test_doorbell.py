"""Sweeps that are rung for, on a real Redis."""

from collections.abc import Callable

import pytest
import redis
from pydantic import SecretStr

from service.settings import Settings
from workers.app import make_app
from workers.tasks import SAME_SWEEP_SECONDS, Doorbell
from workers.verbs import Verb


class Hands:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def bell(redis_url: str, hands: Hands) -> Doorbell:
    return Doorbell(make_app(Settings(redis_url=SecretStr(redis_url))), hands)


@pytest.fixture
def sweeps(redis_url: str) -> Callable[[], int]:
    def waiting() -> int:
        with redis.Redis.from_url(redis_url) as client:
            return int(client.llen(Verb.SWEEP.value))

    before = waiting()
    return lambda: waiting() - before


def test_a_sweep_that_has_not_begun_is_not_rung_for_again(bell: Doorbell, sweeps: Callable[[], int]):
    for _ in range(100):
        bell.ring_for_all()
    assert sweeps() == 1


def test_what_becomes_due_after_a_sweep_began_is_rung_for(bell: Doorbell, sweeps: Callable[[], int]):
    bell.ring_for_all()
    bell.sweep_begins()
    bell.ring_for_all()
    assert sweeps() == 2


def test_a_sweep_that_another_process_took_is_not_waited_for(bell: Doorbell, hands: Hands, sweeps: Callable[[], int]):
    bell.ring_for_all()
    hands.seconds += SAME_SWEEP_SECONDS
    bell.ring_for_all()
    assert sweeps() == 2
