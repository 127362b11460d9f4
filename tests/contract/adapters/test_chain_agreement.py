"""Several endpoints, of which some lag, boast, lie or err: a wait where too few agree, never a wrong yes or no."""

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.adapters.chain import JsonRpcChain
from service.domain.chain import Allowed, Block, ChainView
from service.domain.errors import CountersignError, Refused, StateUnavailable, Unreachable
from service.domain.finality import FINALIZED, Confirmations, Finality
from service.domain.reasons import Reason
from tests.support.hostile_http import Behaviour, Request, RpcSays, Say
from tests.support.hostile_rpc import chain_of, says
from tests.support.rpc_nodes import APP, DEVICE, FINAL_BELOW_HEAD, HASH, Node, saying

Endpoint = Callable[[Request], Behaviour]
both_finalities = pytest.mark.parametrize("finality", [FINALIZED, Confirmations(FINAL_BELOW_HEAD)], ids=str)
YES, NO = Allowed(compose_hash=True, device=True), Allowed(compose_hash=False, device=False)


def view_at(node: Node, height: int) -> ChainView:
    return ChainView(node.block(height), node.block(height - FINAL_BELOW_HEAD))


def placed(odd: Endpoint, others: Sequence[Endpoint], place: int) -> list[Endpoint]:
    return [*others[:place], odd, *others[place:]]


def allowed(chain: JsonRpcChain, at: Block) -> Allowed:
    return chain.allowed(APP, HASH, DEVICE, at)


every_place = pytest.mark.parametrize("place", [0, 1, 2])


@every_place
@pytest.mark.parametrize("truth", [True, False])
def test_one_of_three_that_lies_about_the_allowlist_is_outvoted(place: int, truth: bool, caplog: Any):
    honest = [Node(allowed=truth), Node(allowed=truth)]
    for lie in (Node(allowed=not truth), Node(has_app=False)):
        with chain_of(*placed(lie, honest, place), agreement=2) as chain:
            assert allowed(chain, honest[0].block(100)) == (YES if truth else NO)
    assert (f"RPC endpoint {place + 1} of chain 31337" in caplog.text) == (place < 2)  # the third is not asked


@every_place
def test_one_of_three_that_lies_about_owner_and_simulation_is_outvoted(place: int):
    def owned_by(digit: str) -> Endpoint:
        return saying(lambda method, _: "0x60" if method == "eth_getCode" else "0x" + "00" * 12 + digit * 40)

    def reverting(words: str) -> Endpoint:
        return says(3, f"execution reverted: {words}")

    at, owner = Node().block(100), "0x" + "1" * 40
    with chain_of(*placed(owned_by("2"), [owned_by("1"), owned_by("1")], place), agreement=2) as chain:
        assert chain.ownership(APP, at).owner == owner
    would_do: Endpoint = saying(lambda *_: "0x")
    with chain_of(*placed(would_do, [reverting("GS013"), reverting("GS013 ")], place), agreement=2) as chain:
        assert chain.simulate(owner, APP, "0x", at) is not None
    with chain_of(*placed(reverting("no"), [would_do, would_do], place), agreement=2) as chain:
        assert chain.simulate(owner, APP, "0x", at) is None


def test_one_that_lies_is_enough_to_wait_when_another_is_away():
    with (
        chain_of(Node(allowed=True), Node(allowed=False), lambda _: Say(500), agreement=2) as chain,
        pytest.raises(Unreachable, match="2 of 3 must agree and do not") as fault,
    ):
        allowed(chain, Node().block(100))
    assert fault.value.reason is Reason.RPC_UNREACHABLE


def test_a_missing_app_is_refused_only_when_enough_endpoints_say_so():
    at = Node().block(100)
    with chain_of(Node(), Node(has_app=False), Node(has_app=False), agreement=2) as chain, pytest.raises(Refused):
        allowed(chain, at)
    lagging = Node(height=50)
    with chain_of(Node(has_app=False), lagging, lagging, agreement=2) as chain, pytest.raises(StateUnavailable):
        allowed(chain, at)


@every_place
def test_one_of_three_that_lags_costs_nothing(place: int):
    honest = [Node(logs_at=(95,)), Node(logs_at=(95,))]
    with chain_of(*placed(Node(height=60), honest, place), agreement=2) as chain:
        view = chain.view()
        assert view == view_at(honest[0], 100)
        assert allowed(chain, view.head) == YES
        assert chain.block(100) == view.head
        assert chain.block(101) is None
        assert [fact.block.number for fact in chain.facts(91, 100)] == [95]


@both_finalities
@every_place
def test_one_of_three_that_boasts_does_not_decide(place: int, finality: Finality):
    honest = [Node(height=101), Node(height=100)]
    boasts: list[Endpoint] = [
        Node(height=10**6),
        Node(height=10**6, branch="f"),
        saying(lambda _, params: boast(params[0])),
    ]

    def boast(which: str) -> object:
        if which.startswith("0x"):
            raise RpcSays(-32603, "boom")
        return {"number": "0xfffff", "hash": "0x" + "f" * 64}

    for boaster in boasts:
        with chain_of(*placed(boaster, honest, place), agreement=2, finality=finality) as chain:
            view = chain.view()
            assert view.head in (honest[0].block(100), honest[0].block(101))
            assert view.final in (honest[0].block(90), honest[0].block(91))


@both_finalities
@every_place
def test_one_that_is_stuck_does_not_freeze_the_chain(place: int, finality: Finality):
    honest = [Node(), Node()]
    with chain_of(*placed(Node(height=70), honest, place), agreement=2, finality=finality) as chain:
        for height in (100, 101, 105):
            honest[0].height = honest[1].height = height
            assert chain.view() == view_at(honest[0], height)


@both_finalities
@every_place
def test_a_made_up_block_between_the_heads_of_honest_endpoints_is_passed_over(place: int, finality: Finality):
    honest = [Node(height=102), Node(height=100)]
    liar = Node(height=101, branch="f")
    with chain_of(*placed(liar, honest, place), agreement=2, finality=finality) as chain:
        assert chain.view() == view_at(honest[0], 100)


@every_place
@pytest.mark.parametrize("confirms", [100, 101])
@pytest.mark.parametrize("below", [None, {"number": "0x5a", "hash": "0x" + "f" * 64}])
def test_one_that_confirms_a_head_and_lies_about_what_is_below_does_not_stop_the_chain(
    place: int, confirms: int, below: object
):
    honest = [Node(height=101), Node(height=100)]

    def head_only(_method: str, params: list[Any]) -> object:
        block = honest[0].block(confirms)
        return {"number": hex(block.number), "hash": block.hash} if params[0] == "latest" else below

    with chain_of(
        *placed(saying(head_only), honest, place), agreement=2, finality=Confirmations(FINAL_BELOW_HEAD)
    ) as chain:
        assert chain.view() in (view_at(honest[0], 100), view_at(honest[0], 101))


@both_finalities
def test_endpoints_on_two_branches_agree_on_nothing_and_the_chain_waits(finality: Finality):
    with chain_of(Node(), Node(branch="b"), agreement=2, finality=finality) as chain:
        for read in (chain.view, lambda: chain.block(100)):
            with pytest.raises(Unreachable, match="contradict each other"):
                read()


def test_of_two_endpoints_either_is_enough_unless_both_must_agree():
    node = Node(logs_at=(95,))
    down: Endpoint = lambda _: Say(503)  # noqa: E731 - a constant endpoint
    for pair in ([node, down], [down, node]):
        with chain_of(*pair) as chain:
            view = chain.view()
            assert (view, allowed(chain, view.head), chain.block(100)) == (view_at(node, 100), YES, view.head)
            assert len(chain.facts(90, 100)) == 1
        with chain_of(*pair, agreement=2) as chain:
            for read in (
                lambda chain=chain: chain.view(),
                lambda chain=chain: chain.block(100),
                lambda chain=chain: chain.facts(90, 100),
                lambda chain=chain: allowed(chain, node.block(100)),
            ):
                with pytest.raises(Unreachable):
                    read()


@every_place
def test_one_of_three_that_errs_costs_nothing(place: int):
    bad: list[Endpoint] = [
        lambda _: Say(500),
        lambda _: Say(200, b"<html>"),
        says(-32603, "boom"),
        Node(chain_id=1, allowed=False),
        Node(chain_id=1, branch="f"),
    ]
    honest = [Node(logs_at=(95,)), Node(logs_at=(95,))]
    for one in bad:
        with chain_of(*placed(one, honest, place), agreement=2) as chain:
            view = chain.view()
            assert (view, allowed(chain, view.head)) == (view_at(honest[0], 100), YES)
            assert [fact.block.number for fact in chain.facts(91, 100)] == [95]


def test_an_endpoint_that_begins_to_serve_another_chain_stops_counting_for_what_decides_at_once():
    turncoat, other = Node(), Node()
    with chain_of(turncoat) as alone, chain_of(turncoat, other) as pair:
        for chain in (alone, pair):
            chain.view()
        turncoat.chain_id, turncoat.allowed = 1, False
        for read in (lambda: allowed(alone, other.block(100)), lambda: alone.block(100)):
            with pytest.raises(Unreachable, match="serves chain 1, not 31337"):
                read()
        with pytest.raises(Unreachable, match="serves chain 1, not 31337"):
            alone.view()  # the fault made it prove its chain again
        assert allowed(pair, other.block(100)) == YES
        assert pair.view() == view_at(other, 100)


@every_place
def test_logs_that_one_endpoint_keeps_back_are_found_at_the_others(place: int):
    honest = [Node(logs_at=(92, 97)), Node(logs_at=(92,))]
    with chain_of(*placed(Node(), honest, place), agreement=2) as chain:
        assert [fact.block.number for fact in chain.facts(91, 100)] == [92, 97]
    with chain_of(Node(), Node(logs_at=(97,))) as chain:
        assert [fact.block.number for fact in chain.facts(91, 100)] == [97]


def test_logs_need_as_many_answers_as_must_agree():
    down: Endpoint = lambda _: Say(500)  # noqa: E731 - a constant endpoint
    with chain_of(Node(), down, down, agreement=2) as chain, pytest.raises(Unreachable, match="2 of 3"):
        chain.facts(91, 100)


@both_finalities
def test_a_block_that_matches_nothing_takes_two_requests_to_each_endpoint(finality: Finality):
    nodes = [Node(), Node(), Node()]
    with chain_of(*nodes, agreement=2, finality=finality) as chain:
        chain.view()
        for _ in range(3):
            for node in nodes:
                node.height += 1
                node.requests = 0
            view = chain.view(70)
            assert view.also == nodes[0].block(70)
            chain.facts(view.final.number, view.head.number)
            assert [node.requests for node in nodes] == [2, 2, 2]


@both_finalities
@every_place
def test_one_of_three_that_lies_about_one_more_block_is_outvoted(place: int, finality: Finality):
    honest = [Node(height=101), Node(height=100)]

    def other_below(_method: str, params: list[Any]) -> object:
        return (
            {"number": params[0], "hash": "0x" + "f" * 64}
            if params[0] == hex(70)
            else honest[0].answer(_method, params)
        )

    with chain_of(*placed(saying(other_below), honest, place), agreement=2, finality=finality) as chain:
        for _ in range(3):
            assert chain.view(70).also in (None, honest[0].block(70))
    with chain_of(Node(), Node(branch="b"), Node(), agreement=2, finality=finality) as chain:
        assert chain.view(70).also == Node().block(70)
    with chain_of(Node(), saying(other_below), agreement=2, finality=finality) as chain:
        assert chain.view(70).also is None


@pytest.mark.parametrize("agreement", [0, 3, -1])
def test_an_agreement_that_cannot_be_reached_is_a_mistake(agreement: int):
    with pytest.raises(ValueError, match="must agree"):
        JsonRpcChain(31337, ["http://a.test", "http://b.test"], FINALIZED, agreement=agreement)


heights = st.integers(0, 130)
lying_blocks = st.builds(
    lambda number, digit: {"number": hex(number), "hash": "0x" + digit * 4 + f"{number:060x}"},
    heights,
    st.sampled_from("af"),
)
flags = st.sampled_from(["0x" + f"{flag:064x}" for flag in (0, 1, 2)] + ["0x", "0x60"])
errors = st.builds(
    RpcSays,
    st.sampled_from([3, -32000, -32001, -32005, -32602]),
    st.sampled_from(["execution reverted", "header not found", "query returned more than 1 results", "boom"]),
)
lies = lying_blocks | flags | errors | st.none() | st.just([]) | st.lists(lying_blocks, max_size=2)


@settings(max_examples=150, deadline=None)
@given(
    lies=st.lists(lies, min_size=12, max_size=12),
    place=st.integers(0, 2),
    truth=st.booleans(),
    ahead=st.integers(0, 3),
    by_depth=st.booleans(),
)
def test_whatever_one_of_three_says_the_answers_are_those_of_the_honest_two(
    lies: list[object], place: int, truth: bool, ahead: int, by_depth: bool
):
    following = cycle(lies)

    def lie(_method: str, _params: list[Any]) -> object:
        said = next(following)
        if isinstance(said, RpcSays):
            raise said
        return said

    honest = [Node(height=100 + ahead, allowed=truth, logs_at=(95,)), Node(allowed=truth, logs_at=(95,))]
    finality = Confirmations(FINAL_BELOW_HEAD) if by_depth else FINALIZED
    with chain_of(*placed(saying(lie), honest, place), agreement=2, finality=finality) as chain:
        view = chain.view()
        assert view.head == honest[0].block(view.head.number)
        assert view.final == honest[0].block(view.final.number)
        assert allowed(chain, honest[0].block(100)) == (YES if truth else NO)
        assert chain.block(100) == honest[0].block(100)
        assert honest[0].block(95) in {fact.block for fact in chain.facts(91, 100)}


@settings(max_examples=100, deadline=None)
@given(
    flags=st.lists(st.sampled_from([True, False, None]), min_size=3, max_size=5),
    agreement=st.integers(1, 3),
)
def test_an_answer_is_only_given_when_enough_gave_it(flags: list[bool | None], agreement: int):
    nodes: list[Endpoint] = [(lambda _: Say(500)) if flag is None else Node(allowed=flag) for flag in flags]
    with chain_of(*nodes, agreement=agreement) as chain:
        try:
            answer = allowed(chain, Node().block(100))
        except CountersignError:
            assert max(flags.count(True), flags.count(False)) < agreement
        else:
            assert flags.count(answer.both) >= agreement
