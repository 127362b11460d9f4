"""One service that stalls, or asks for a pause, takes no more than its share."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from sandbox.chain.accounts import DELEGATE
from service.adapters.bulkhead import Bulkhead, Pause
from service.adapters.safe import TransactionService
from service.domain.errors import Unreachable
from service.domain.reasons import Reason
from tests.support.builders import APP, SAFE, safe_transaction
from tests.support.hostile_http import Behaviour, Request, Say, Served, serving
from tests.support.queue_worlds import signer_of
from tests.support.rows import OTHER_SAFE
from tests.support.rpc_nodes import HandClock
from tests.support.threads import wait_until

THIRD_SAFE = APP
EMPTY = {"count": 0, "next": None, "previous": None, "results": []}


def test_who_finds_no_place_is_told_to_come_back():
    bulkhead = Bulkhead("the oracle", Reason.RPC_UNREACHABLE, 2, patience=0.01)
    with bulkhead, bulkhead:
        with pytest.raises(Unreachable, match="the oracle: 2 calls are under way already") as fault, bulkhead:
            pass
        assert (fault.value.retry_after, fault.value.outcome_unknown) == (1.0, False)
    with bulkhead, bulkhead:
        pass


def test_a_place_is_given_back_by_a_call_that_fails():
    bulkhead = Bulkhead("the oracle", Reason.RPC_UNREACHABLE, 1, patience=0.01)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), bulkhead:
            raise ZeroDivisionError


def test_who_waits_a_moment_gets_the_place_that_becomes_free():
    bulkhead = Bulkhead("the oracle", Reason.RPC_UNREACHABLE, 1, patience=20)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with bulkhead:
            entered.set()
            leave.wait(20)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        assert entered.wait(20)
        leave.set()
        with bulkhead:
            assert holding.result(timeout=20) is None


def test_where_nothing_moves_nobody_waits():
    bulkhead = Bulkhead("the oracle", Reason.RPC_UNREACHABLE, 1, patience=0.4)

    def refused_after() -> float:
        began = time.monotonic()
        with pytest.raises(Unreachable), bulkhead:
            pass
        return time.monotonic() - began

    with bulkhead:
        assert refused_after() >= 0.3
        assert [refused_after() < 0.3 for _ in range(5)] == [True] * 5


def test_a_pause_ends_and_a_shorter_one_does_not_shorten_it():
    clock = HandClock()
    pause = Pause(clock)
    assert pause.left() == 0
    pause.ask_for(30)
    pause.ask_for(5)
    assert pause.left() == 30
    clock.seconds += 29
    assert pause.left() == 1
    clock.seconds += 1
    assert pause.left() == 0
    pause.ask_for(10**9)
    assert pause.left() == 600
    patient = Pause(clock, longest=7200)
    patient.ask_for(10**9)
    assert patient.left() == 7200


@contextmanager
def queue_at(server: Served, calls: int = 4) -> Iterator[TransactionService]:
    with closing(TransactionService(server.url, chain_id=31337, signer=signer_of(DELEGATE), calls=calls)) as queue:
        yield queue


def test_a_transaction_service_that_stalls_holds_its_share_of_threads():
    gate = threading.Event()

    def slow(_: Request) -> Behaviour:
        gate.wait(20)
        return Say.json(EMPTY)

    with serving(slow) as server, queue_at(server, calls=2) as queue, ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(queue.pending, safe, 3) for safe in (SAFE, OTHER_SAFE)]
        wait_until(lambda: len(server.requests) == 2, "two calls are under way")
        for call in (
            lambda: queue.pending(THIRD_SAFE, 3),
            lambda: queue.post(safe_transaction(safe=THIRD_SAFE), "0x" + "11" * 65, DELEGATE.address, "Countersign"),
        ):
            with pytest.raises(Unreachable, match="2 calls are under way already") as fault:
                call()
            assert (fault.value.reason, fault.value.retry_after) == (Reason.SAFE_SERVICE_UNREACHABLE, 1.0)
            assert not fault.value.outcome_unknown
        gate.set()
        assert [call.result(timeout=20) for call in calls] == [[], []]
        assert queue.pending(SAFE, 3) == []


@pytest.mark.fault(
    "Safe Transaction Service",
    "Every call about one Safe hangs",
    "they take at most half of the calls to it, other Safes of the chain are served",
    "no delay",
)
def test_one_safe_that_stalls_leaves_places_for_the_others():
    """Every call about one Safe hangs: each kind of call finds its share taken, other Safes are served."""
    gate = threading.Event()

    def slow(request: Request) -> Behaviour:
        if SAFE in request.target:
            gate.wait(20)
        return Say.json(EMPTY)

    with serving(slow) as server, queue_at(server, calls=4) as queue, ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(queue.pending, SAFE, 3) for _ in range(2)]
        wait_until(lambda: len(server.requests) == 2, "two calls are under way")
        for call in (
            lambda: queue.pending(SAFE, 3),
            lambda: queue.at_nonce(SAFE, 3),
            lambda: queue.get(SAFE, "0x" + "9f" * 32),
            lambda: queue.delegators(SAFE, DELEGATE.address),
            lambda: queue.delete(SAFE, "0x" + "9f" * 32),
            lambda: queue.post(safe_transaction(safe=SAFE), "0x" + "11" * 65, DELEGATE.address, "Countersign"),
        ):
            with pytest.raises(Unreachable, match="one Safe: 2 calls are under way already") as fault:
                call()
            assert not fault.value.outcome_unknown
        assert queue.pending(OTHER_SAFE, 3) == []
        gate.set()
        assert [call.result(timeout=20) for call in calls] == [[], []]


@pytest.mark.parametrize(
    ("status", "headers", "pause"),
    [(429, {"Retry-After": "30"}, 30), (429, {}, 1)],
)
def test_a_transaction_service_that_asks_for_a_pause_is_left_alone(status: int, headers: dict[str, str], pause: int):
    with serving(lambda _: Say(status, b"{}", headers)) as server, queue_at(server) as queue:
        with pytest.raises(Unreachable, match=f"HTTP {status}"):
            queue.pending(SAFE, 3)
        for call in (lambda: queue.pending(SAFE, 3), lambda: queue.delete(SAFE, "0x" + "9f" * 32)):
            with pytest.raises(Unreachable, match="asked to be left alone") as fault:
                call()
            assert fault.value.retry_after is not None
            assert 0 < fault.value.retry_after <= pause
            assert not fault.value.outcome_unknown
        assert len(server.requests) == 1


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "30"}], ids=["no time", "a time"])
def test_what_fails_for_one_safe_is_no_reason_to_spare_others(headers: dict[str, str]):
    with serving(lambda _: Say(503, b"{}", headers)) as server, queue_at(server) as queue:
        for _ in range(2):
            with pytest.raises(Unreachable, match="HTTP 503"):
                queue.pending(SAFE, 3)
        assert len(server.requests) == 2


def test_the_transaction_service_of_one_chain_says_nothing_about_anothers():
    with (
        serving(lambda _: Say(429, b"{}", {"Retry-After": "30"})) as spared,
        serving(lambda _: Say.json(EMPTY)) as fine,
        queue_at(spared) as one,
        queue_at(fine) as other,
    ):
        with pytest.raises(Unreachable, match="HTTP 429"):
            one.pending(SAFE, 3)
        assert other.pending(SAFE, 3) == []
