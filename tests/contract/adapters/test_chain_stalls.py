"""Endpoints that stall, err or ask for a pause: a moment is lost, not the chain, nor other chains' threads."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import pytest

from service.adapters.chain import JsonRpcChain
from service.domain.errors import Unreachable
from service.domain.finality import FINALIZED
from service.domain.reasons import Reason
from tests.support.hostile_http import Behaviour, Request, Say, Served, Stall, serving
from tests.support.hostile_rpc import chain_of
from tests.support.rpc_nodes import APP, DEVICE, HASH, HandClock, Node
from tests.support.threads import wait_until

T = TypeVar("T")
Endpoint = Callable[[Request], Behaviour]
TIMEOUT = 60.0
"""Of one exchange; long beside ``SOON``, so that a call that waits for one that stalls cannot pass for a quick one."""
SOON = 20.0
AT = Node().block(100)


@contextmanager
def served(
    *endpoints: Endpoint, agreement: int = 1, calls: int = 4, timeout: float = TIMEOUT
) -> Iterator[tuple[JsonRpcChain, list[Served]]]:
    """The adapter over real HTTP servers, and these."""
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(endpoint)) for endpoint in endpoints]
        urls = [server.url for server in servers]
        chain = JsonRpcChain(31337, urls, FINALIZED, agreement=agreement, calls=calls, timeout=timeout)
        stack.callback(chain.close)
        yield chain, servers


def stalling(_: Request) -> Behaviour:
    return Stall()


def soon(call: Callable[[], T]) -> T:
    """What a call gives without waiting for the endpoint that stalls."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(SOON)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_of_three_that_stalls_costs_a_moment_once(place: int):
    endpoints: list[Endpoint] = [Node(logs_at=(95,)), Node(logs_at=(95,))]
    endpoints.insert(place, stalling)
    with served(*endpoints, agreement=2) as (chain, servers):
        for read in (
            chain.view,
            chain.view,
            lambda: chain.facts(91, 100),
            lambda: chain.allowed(APP, HASH, DEVICE, AT),
        ):
            soon(read)
        assert len(servers[place].requests) == 1  # it is not asked again before that call ended


def test_what_decides_is_asked_of_another_endpoint_when_one_takes_long():
    with served(stalling, Node(), Node(), agreement=2) as (chain, _):
        soon(lambda: chain.allowed(APP, HASH, DEVICE, AT))


def test_of_two_endpoints_one_that_stalls_costs_a_moment_once():
    with served(stalling, Node()) as (chain, _):
        soon(chain.view)
        soon(chain.view)
        soon(lambda: chain.allowed(APP, HASH, DEVICE, AT))


def test_a_chain_that_is_known_to_stall_is_called_by_one_thread_and_the_others_lose_no_time():
    with served(stalling, timeout=3) as (chain, servers), ThreadPoolExecutor(1) as pool:
        with pytest.raises(Unreachable, match="no answer in time"):
            chain.view()
        probe = pool.submit(chain.view)
        wait_until(lambda: len(servers[0].requests) == 2, "one call finds out whether it is back")
        for _ in range(20):  # were each to wait for a moment, the call would end first, and one of these be the next
            with pytest.raises(Unreachable, match="finds out whether they are back"):
                chain.view()
        assert len(servers[0].requests) == 2
        assert isinstance(probe.exception(timeout=30), Unreachable)


def test_a_share_of_the_threads_is_inside_calls_to_one_chain_and_who_comes_above_is_sent_away():
    inside = threading.Semaphore(0)
    gate = threading.Event()

    def slow(request: Request) -> Behaviour:
        inside.release()
        gate.wait(20)
        return node(request)

    node = Node()
    with served(slow, calls=2) as (chain, servers), ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(chain.block, 100) for _ in range(2)]
        assert all(inside.acquire(timeout=10) for _ in range(2))
        with pytest.raises(Unreachable, match="2 calls are under way already") as fault:
            chain.block(100)
        assert (fault.value.reason, fault.value.retry_after) == (Reason.RPC_UNREACHABLE, 1.0)
        gate.set()
        assert [call.result(timeout=10) for call in calls] == [AT, AT]
        assert chain.block(100) == AT
        assert len(servers[0].requests) == 3


def test_closing_does_not_wait_for_a_call_that_was_left_behind():
    with served(stalling, Node()) as (chain, _):
        chain.view()
        soon(chain.close)


def counting(endpoint: Endpoint) -> tuple[Endpoint, list[Request]]:
    requests: list[Request] = []

    def count(request: Request) -> Behaviour:
        requests.append(request)
        return endpoint(request)

    return count, requests


def test_an_endpoint_that_fails_rests_for_growing_pauses_of_at_most_a_minute():
    clock = HandClock()
    bad, requests = counting(lambda _: Say(500))
    with chain_of(bad, Node(), monotonic=clock) as chain:
        pauses = []
        for _ in range(9):
            chain.view()
            asked, began = len(requests), clock.seconds
            while len(requests) == asked:
                clock.seconds += 0.5
                chain.view()
            pauses.append(clock.seconds - began)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_one_answer_ends_the_rests():
    clock = HandClock()
    node = Node()
    ill = True
    flaky, requests = counting(lambda request: Say(500) if ill else node(request))
    with chain_of(flaky, Node(), monotonic=clock) as chain:
        for _ in range(4):
            chain.view()
            clock.seconds += 100
        ill = False
        chain.view()
        asked = len(requests)
        chain.view()
        assert len(requests) == asked + 1


def test_when_all_rest_the_one_that_rested_longest_is_tried():
    clock = HandClock()
    first, first_requests = counting(lambda _: Say(500))
    second, second_requests = counting(lambda _: Say(500))
    with chain_of(first, second, monotonic=clock) as chain:
        for expected in ((1, 1), (2, 1), (2, 2)):
            with pytest.raises(Unreachable):
                chain.allowed(APP, HASH, DEVICE, AT)
            clock.seconds += 0.01
            assert (len(first_requests), len(second_requests)) == expected


def test_a_pause_that_an_endpoint_asks_for_is_kept_without_asking_it():
    clock = HandClock()
    node = Node()
    busy = True
    limited, requests = counting(lambda request: Say(429, b"", {"Retry-After": "30"}) if busy else node(request))
    with chain_of(limited, monotonic=clock) as chain:
        with pytest.raises(Unreachable, match="HTTP 429") as fault:
            chain.view()
        assert fault.value.retry_after == 30
        busy = False
        clock.seconds += 20
        for read in (chain.view, lambda: chain.block(100), lambda: chain.facts(91, 100)):
            with pytest.raises(Unreachable, match="left alone for 10 s more") as fault:
                read()
            assert fault.value.retry_after == pytest.approx(10)
        assert len(requests) == 1
        clock.seconds += 10
        assert chain.view().head == AT


def test_an_endpoint_that_asks_for_a_pause_does_not_stop_the_others():
    limited, requests = counting(lambda _: Say(503, b"", {"Retry-After": "86400"}))
    clock = HandClock()
    with chain_of(limited, Node(), Node(), agreement=2, monotonic=clock) as chain:
        for _ in range(3):
            assert chain.view().head == AT
            clock.seconds += 100
        assert len(requests) == 1
        clock.seconds += 600  # nobody is obeyed for longer
        chain.view()
        assert len(requests) == 2


def test_the_chain_is_proven_again_after_half_a_minute():
    clock = HandClock()
    node = Node()
    with chain_of(node, monotonic=clock) as chain:
        chain.view()
        node.chain_id = 1
        assert chain.view().head == AT  # the connection stood all the while
        clock.seconds += 31
        with pytest.raises(Unreachable, match="serves chain 1"):
            chain.view()


def test_many_threads_share_one_adapter():
    nodes = [Node(logs_at=(95,)), Node(logs_at=(95,)), Node(height=90)]
    with served(*nodes, agreement=2, calls=8) as (chain, _), ThreadPoolExecutor(8) as pool:

        def look(_: int) -> bool:
            view = chain.view()
            facts = chain.facts(91, 100)
            return view.head == AT and len(facts) == 1 and chain.allowed(APP, HASH, DEVICE, view.head).both

        assert all(pool.map(look, range(40)))
        soon(chain.view)
