"""Logs that come with the head, where the head is where it was guessed to be."""

import pytest

from service.domain.errors import Nonsense
from service.domain.finality import FINALIZED, Confirmations, Finality
from tests.support.hostile_http import Behaviour, Request, RpcSays, Say
from tests.support.hostile_rpc import chain_of
from tests.support.rpc_nodes import FINAL_BELOW_HEAD, Node, saying

both_finalities = pytest.mark.parametrize("finality", [FINALIZED, Confirmations(FINAL_BELOW_HEAD)], ids=str)


def grow(*nodes: Node, by: int = 1) -> None:
    for node in nodes:
        node.height += by
        node.requests = 0
        node.asked.clear()


@both_finalities
def test_a_block_takes_one_request_to_each_endpoint(finality: Finality):
    nodes = [Node(logs_at=(95, 101)), Node(logs_at=(95,)), Node()]
    with chain_of(*nodes, agreement=2, finality=finality) as chain:
        assert chain.view(logs_above=90).facts is None  # nothing is guessed yet
        grow(*nodes)
        view = chain.view(logs_above=90)
        assert view.facts is not None
        assert [fact.block.number for fact in view.facts] == [95, 101]
        assert view.facts == chain.facts(91, 101)
        assert [node.ranges()[0] for node in nodes] == [(91, 101)] * 3
        assert [node.requests for node in nodes] == [2, 2, 2]  # the second is the one for comparison


@both_finalities
def test_a_wrong_guess_tells_no_logs(finality: Finality):
    node = Node(logs_at=(95,))
    with chain_of(node, finality=finality) as chain:
        chain.view()
        grow(node, by=3)
        assert chain.view(logs_above=90).facts is None
        grow(node, by=3)  # as far as the last time
        view = chain.view(logs_above=90)
        assert view.facts is not None
        assert [fact.block.number for fact in view.facts] == [95]


def test_where_one_endpoint_tells_none_they_are_asked_for():
    quiet = Node(most_blocks=0, refusal=RpcSays(-32000, "block range extends beyond current head block"))
    other = Node()
    with chain_of(other, quiet, agreement=2) as chain:
        chain.view()
        grow(other, quiet)
        view = chain.view(logs_above=90)
        assert view.head == other.block(101)
        assert view.facts is None


def test_too_many_blocks_are_learned_and_not_asked_for_again():
    node = Node(most_blocks=5)
    with chain_of(node) as chain:
        chain.view()
        grow(node)
        assert chain.view(logs_above=90).facts is None
        assert node.ranges() == [(91, 101)]
        grow(node)
        assert chain.view(logs_above=90).facts is None
        assert node.ranges() == []
        grow(node)
        assert chain.view(logs_above=100).facts == ()


def test_logs_that_spoil_the_whole_request_do_not_cost_the_head():
    node = Node()

    def all_or_nothing(request: Request) -> Behaviour:
        if b"eth_getLogs" in request.body:
            return Say(200, b'{"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "too much"}}')
        return node(request)

    with chain_of(all_or_nothing) as chain:
        chain.view()
        grow(node)
        view = chain.view(logs_above=90)
    assert view.head == node.block(101)
    assert view.facts is None


def test_logs_of_the_wrong_shape_do_not_cost_the_head():
    node = Node()
    nonsense = saying(lambda method, params: 7 if method == "eth_getLogs" else node.answer(method, params))
    with chain_of(nonsense) as chain:
        chain.view()
        grow(node)
        view = chain.view(logs_above=90)
        assert view.head == node.block(101)
        assert view.facts is None
        with pytest.raises(Nonsense):
            chain.facts(91, 101)
