"""Limits of ``eth_getLogs``: found out from whatever a provider says, kept to, and tried again now and then."""

import pytest

from service.adapters.jsonrpc import RpcFault
from service.adapters.log_ranges import LogRanges
from service.adapters.rpc_faults import range_named, too_wide
from service.domain.errors import StateUnavailable, Unreachable
from tests.support.hostile_http import Behaviour, Request, RpcSays, Say
from tests.support.hostile_rpc import chain_of
from tests.support.rpc_nodes import Node

ALCHEMY = (
    "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range and no limit on the "
    "response size, or you can request any block range with a cap of 10K logs in the response. Based on your "
    "parameters and the response size limit, this block range should work: [0xc5dc00, 0xc614a7]"
)
ALCHEMY_PAID = (
    "You can make eth_getLogs requests with up to a 500 block range. Based on your parameters, this block range should "
    "work: [0x123c9b2, 0x123cba5]"
)
ALCHEMY_FREE = (
    "Under the Free tier plan, you can make eth_getLogs requests with up to a 10 block range. Upgrade to PAYG for "
    "expanded block range."
)
ZKSYNC = "Query returned more than 10000 results. Try with this block range [0x0, 0x30f]."
TENDERLY = "{'error_id': '4ed94073', 'payload': 'range 9009594 is bigger than range limit 2000'}"
REFUSALS = [
    # What they say, in reports to their clients' projects: code, message, other words, blocks asked for, blocks named.
    (-32005, "query returned more than 10000 results", "", 2000, None),  # Infura
    (-32005, "query returned more than 1000 results", "", 2000, None),
    (-32005, "query timeout exceeded", "", 2000, None),
    (-32602, "range 1000000 exceeds limit of 10000", "", 1000000, 10000),
    (-32602, "Log response size exceeded. Please reduce query block range.", "", 2000, None),  # Alchemy
    (-32602, ALCHEMY, "", 100000, 14504),
    (-32600, ALCHEMY_PAID, "", 2000, 500),
    (-32600, ALCHEMY_FREE, "", 2000, 10),
    (-32600, "Response size is larger than 150MB limit", "", 2000, None),
    (-32614, "eth_getLogs is limited to a 10,000 range", "", 20000, 10000),  # QuickNode
    (-32000, "maximum [from, to] blocks distance: 10000", "", 20000, 10000),  # Ankr
    (-32000, "exceed maximum block range: 5000", "", 6000, 5000),  # BNB Chain, publicnode
    (-32602, "eth_getLogs range is too large, max is 1k blocks", "", 2000, 1000),  # LlamaRPC, merkle.io
    (35, "ranges over 10000 blocks are not supported on freetier", "", 20000, 10000),  # dRPC
    (-32047, "Invalid eth_getLogs request. 'fromBlock'-'toBlock' range too large. Max range: 800", "", 2000, 800),
    (-32602, "invalid params", TENDERLY, 9009595, 2000),
    (-32602, "query exceeds max block range 5000", "", 6000, 5000),  # reth
    (-32602, "query exceeds max results 20000, retry with the range 25766988-25775072", "", 8085, None),
    (-32000, "query block range exceeds server limit, narrow your filter: 1000", "", 2000, 1000),  # Erigon
    (-32000, "query returns too many logs, narrow your filter: 20000", "", 2000, None),
    (-32005, "block range too large, max range: 1000", "", 2000, 1000),  # cdk-erigon
    (-32000, "block range is larger than max block range, block range = 5120, max block range = 5000", "", 5120, 5000),
    (-32000, "block range is bigger than maxBlockRange", "", 2000, None),  # Scroll
    (-32000, "requested too many blocks from 0 to 5000000, maximum is set to 1024", "", 5000001, 1024),  # coreth
    (-32008, "Response is too big", "Exceeded max limit of 1048576", 2000, None),  # jsonrpsee: zkSync, Hyperliquid
    (-32602, ZKSYNC, "", 2000, 784),
    (-32000, "block range is too wide (maximum 1024)", "", 2000, 1024),  # Frontier: Moonbeam
    (-32000, "query must be smaller than size 1024", "", 2000, 1024),  # Harmony
    (-32020, "backend response too large", "", 2000, None),  # proxyd
    (-32600, "block range too high", "", 2000, None),
]
OTHER_FAULTS = [
    (-32005, "daily request count exceeded, request rate limited"),
    (-32005, "rate limit exceeded"),
    (-32007, "50/second request limit reached - reduce calls per second or upgrade your account"),
    (429, "Your app has exceeded its compute units per second capacity"),
    (-32000, "block range extends beyond current head block"),
    (-32000, "invalid block range params"),
    (-32601, "the method eth_getLogs does not exist/is not available"),
    (-32000, "header not found"),
    (-32603, "Internal error"),
]


@pytest.mark.parametrize(("code", "message", "words", "asked", "named"), REFUSALS)
def test_refusals_of_providers_are_known_and_what_they_name_is_read(
    code: int, message: str, words: str, asked: int, named: int | None
):
    fault = RpcFault(code, message, None, words)
    assert too_wide(fault)
    assert range_named(fault, asked) == named


@pytest.mark.parametrize(("code", "message"), OTHER_FAULTS)
def test_other_faults_are_no_reason_to_ask_for_less(code: int, message: str):
    assert not too_wide(RpcFault(code, message, None))


def covered(ranges: list[tuple[int, int]]) -> list[int]:
    return [number for first, last in ranges for number in range(first, last + 1)]


@pytest.mark.parametrize(
    "refusal",
    [
        RpcSays(-32005, "query returned more than 10000 results"),
        RpcSays(-32602, "invalid params", {"payload": "range 80 is bigger than range limit 12"}),
        RpcSays(-32600, "up to a 12 block range"),
    ],
    ids=["no number", "in data", "number"],
)
def test_a_range_that_is_refused_is_read_in_pieces_and_the_limit_is_kept(refusal: RpcSays):
    node = Node(height=400, logs_at=(121, 150, 200), most_blocks=12, refusal=refusal)
    with chain_of(node) as chain:
        assert [fact.block.number for fact in chain.facts(121, 200)] == [121, 150, 200]
        refused = [one for one in node.ranges() if one[1] - one[0] >= 12]
        read = [one for one in node.ranges() if one[1] - one[0] < 12]
        assert covered(read) == list(range(121, 201))
        named = "12" in str(refusal.error)
        assert len(refused) == (1 if named else 3)  # 80, 40, 20
        node.asked.clear()
        chain.facts(201, 220)
        assert all(last - first < 12 for first, last in node.ranges())


def test_a_block_that_is_refused_alone_is_a_fault():
    with chain_of(Node(most_blocks=0)) as chain, pytest.raises(Unreachable, match="more than 10000 results"):
        chain.facts(91, 100)


@pytest.mark.parametrize("body", [b"", b"<html>413 Request Entity Too Large</html>"])
def test_a_bare_413_is_a_refusal_too(body: bytes):
    node = Node(logs_at=(95,))

    def answer(request: Request) -> Behaviour:
        query = request.json()
        calls = query if isinstance(query, list) else [query]
        for call in calls:
            if call["method"] == "eth_getLogs" and call["params"][0]["fromBlock"] != call["params"][0]["toBlock"]:
                return Say(413, body)
        return node(request)

    with chain_of(answer) as chain:
        assert [fact.block.number for fact in chain.facts(91, 100)] == [95]


def test_limits_are_each_endpoints_own():
    small, large = Node(most_blocks=3, logs_at=(95,)), Node(logs_at=(98,))
    with chain_of(small, large) as chain:
        for _ in range(2):
            assert [fact.block.number for fact in chain.facts(91, 100)] == [95, 98]
        assert large.ranges() == [(91, 100), (91, 100)]


def test_a_long_catch_up_loses_few_requests_to_refusals():
    node = Node(height=20_000, most_blocks=100)
    with chain_of(node) as chain:
        for first in range(1, 20_000, 2000):
            chain.facts(first, min(20_000, first + 1999))
    read = [one for one in node.ranges() if one[1] - one[0] < 100]
    assert covered(read) == list(range(1, 20_001))
    assert len(node.ranges()) - len(read) < 15


def test_larger_ranges_are_tried_again_when_the_blocks_hold_less():
    node = Node(height=20_000, most_blocks=10)
    with chain_of(node) as chain:
        chain.facts(1, 100)
        node.most_blocks = None
        for first in range(101, 10_000, 2000):
            chain.facts(first, first + 1999)
        assert max(last - first + 1 for first, last in node.ranges()) > 300


def test_trials_that_are_refused_become_rarer():
    ranges = LogRanges()
    ranges.refused(2000, 100)
    trials = []
    since = 0
    for _ in range(4000):
        size = ranges.size(2000)
        if size > 100:
            trials.append(since)
            since = 0
            ranges.refused(size, 100)
        else:
            since += 1
            ranges.took(size)
    assert trials == [16, 32, 64, 128, 256, 512, 1024]
    assert ranges.size(2000) == 100


def test_a_refusal_never_asks_for_nothing_and_an_old_one_changes_nothing():
    ranges = LogRanges()
    ranges.refused(2, None)
    assert ranges.size(50) == 1
    ranges.refused(40, 30)  # of a call that began before the limit was known
    assert ranges.size(50) == 1


def test_an_endpoint_without_the_newest_blocks_is_behind_which_is_no_fault_of_its():
    behind = RpcSays(-32602, "block range extends beyond current head block")  # geth
    node, other = Node(most_blocks=0, refusal=behind), Node(logs_at=(95,))
    with chain_of(node, other) as chain:
        assert [fact.block.number for fact in chain.facts(91, 100)] == [95]
        chain.view()
        assert node.requests == 2  # it does not rest
    with chain_of(node) as chain, pytest.raises(StateUnavailable, match="no logs up to block 100"):
        chain.facts(91, 100)
