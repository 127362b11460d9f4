"""The endpoint that fails as real ones do: each behaviour as a client of the node sees it."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from sandbox.anvil import Anvil
from sandbox.chain.accounts import DEPLOYER
from sandbox.chain.apps import deploy_dstack_app
from sandbox.chain.local import LocalChain, encode_call
from sandbox.jsonrpc import JsonRpc, RpcError
from sandbox.rpc_proxy import (
    Fail,
    Lag,
    Lie,
    NoLogs,
    OtherChain,
    Pass,
    RangeLimit,
    Refuse,
    RpcProxy,
    Stall,
    parse_behaviour,
)
from tests.support.threads import wait_until

COMPOSE_HASH = bytes.fromhex("c0" * 32)


@pytest.fixture
def proxy(anvil: Anvil) -> Iterator[RpcProxy]:
    with RpcProxy(anvil.rpc_url) as proxy:
        yield proxy


@pytest.fixture
def rpc(proxy: RpcProxy) -> Iterator[JsonRpc]:
    with JsonRpc(proxy.url, timeout=5) as rpc:
        yield rpc


@pytest.fixture
def app(anvil: Anvil) -> str:
    """An app contract that allows one hash, in a block with two more on top of it."""
    with JsonRpc(anvil.rpc_url) as node:
        chain = LocalChain(node)
        app = deploy_dstack_app(chain, owner=DEPLOYER.address)
        anvil.rpc("anvil_mine", ["0x5"])
        chain.send(DEPLOYER.address, app, encode_call("addComposeHash(bytes32)", COMPOSE_HASH))
        anvil.rpc("anvil_mine", ["0x2"])
    return app


def _allows(rpc: JsonRpc, app: str, block: object = "latest") -> bool:
    data = "0x" + encode_call("allowedComposeHashes(bytes32)", COMPOSE_HASH).hex()
    return int(rpc("eth_call", [{"to": app, "data": data}, block]), 16) == 1


def _number(rpc: JsonRpc) -> int:
    return int(rpc("eth_blockNumber"), 16)


def _logs(rpc: JsonRpc, app: str) -> list[object]:
    return list(rpc("eth_getLogs", [{"address": app, "fromBlock": "0x0", "toBlock": "latest"}]))


def test_it_passes_on_calls_and_batches_and_counts_them(anvil: Anvil, proxy: RpcProxy, rpc: JsonRpc):
    assert rpc("eth_chainId") == hex(anvil.chain_id)
    batch = [
        {"jsonrpc": "2.0", "id": "a", "method": "eth_chainId", "params": []},
        {"jsonrpc": "2.0", "id": "b", "method": "eth_nonsense", "params": []},
    ]
    first, second = httpx.post(proxy.url, json=batch).json()

    assert (first["id"], first["result"]) == ("a", hex(anvil.chain_id))
    assert (second["id"], "error" in second) == ("b", True)
    assert proxy.calls == {"eth_chainId": 2, "eth_nonsense": 1}
    assert proxy.requests == 2
    assert proxy.bytes_in > 100
    assert proxy.bytes_out > 100
    proxy.reset_counts()
    assert (proxy.requests, proxy.calls.total()) == (0, 0)


def test_stalled_requests_are_never_answered(proxy: RpcProxy, rpc: JsonRpc):
    proxy.behave(Stall())
    with JsonRpc(proxy.url, timeout=0.2) as impatient, pytest.raises(httpx.ReadTimeout):
        impatient("eth_chainId")

    outcome: list[Exception] = []

    def ask() -> None:
        try:
            rpc("eth_chainId")
        except httpx.HTTPError as error:
            outcome.append(error)

    patient = threading.Thread(target=ask)
    patient.start()
    wait_until(lambda: proxy.requests == 2, "the patient one's request is there")
    proxy.behave(Pass())
    patient.join(30)
    assert isinstance(outcome[0], httpx.RemoteProtocolError)
    assert rpc("eth_chainId")


def test_nobody_listens_until_it_is_well_again(proxy: RpcProxy, rpc: JsonRpc):
    assert rpc("eth_chainId")
    proxy.behave(Refuse())
    with pytest.raises(httpx.TransportError):
        rpc("eth_chainId")  # on the connection of before
    with pytest.raises(httpx.ConnectError):
        rpc("eth_chainId")
    proxy.behave(Pass())
    assert rpc("eth_chainId")


def test_errors_of_http(proxy: RpcProxy, rpc: JsonRpc):
    proxy.behave(Fail())
    with pytest.raises(httpx.HTTPStatusError, match="500"):
        rpc("eth_chainId")
    proxy.behave(Fail(429, retry_after=7))
    with pytest.raises(httpx.HTTPStatusError) as caught:
        rpc("eth_chainId")
    assert (caught.value.response.status_code, caught.value.response.headers["Retry-After"]) == (429, "7")


def test_a_node_that_is_behind_knows_nothing_newer(anvil: Anvil, proxy: RpcProxy, rpc: JsonRpc, app: str):
    head = _number(rpc)
    newest = rpc("eth_getBlockByNumber", ["latest", False])
    older = rpc("eth_getBlockByNumber", [hex(head - 3), False])
    assert _allows(rpc, app)

    proxy.behave(Lag(3))

    assert _number(rpc) == head - 3
    assert rpc("eth_getBlockByNumber", ["latest", False]) == older
    assert rpc("eth_getBlockByNumber", [hex(head), False]) is None
    assert rpc("eth_getBlockByHash", [newest["hash"], False]) is None
    assert rpc("eth_getBlockByHash", [older["hash"], False]) == older
    finalized = anvil.rpc("eth_getBlockByNumber", ["finalized", False])
    assert int(rpc("eth_getBlockByNumber", ["finalized", False])["number"], 16) == int(finalized["number"], 16) - 3
    assert not _allows(rpc, app)
    assert not _allows(rpc, app, {"blockHash": older["hash"], "requireCanonical": True})
    for block in ({"blockHash": newest["hash"], "requireCanonical": True}, hex(head)):
        with pytest.raises(RpcError, match="header not found"):
            _allows(rpc, app, block)


def test_a_node_that_is_behind_has_no_newer_logs_and_transactions(proxy: RpcProxy, rpc: JsonRpc, app: str):
    query = {"address": app, "fromBlock": hex(_number(rpc) - 2), "toBlock": hex(_number(rpc))}
    added = rpc("eth_getLogs", [query])
    assert "0x" + COMPOSE_HASH.hex() in [log["data"] for log in added]

    proxy.behave(Lag(3))

    assert rpc("eth_getLogs", [query]) == []
    assert len(_logs(rpc, app)) > 0
    assert not [log for log in _logs(rpc, app) if log in added]
    assert rpc("eth_getTransactionReceipt", [added[0]["transactionHash"]]) is None
    proxy.behave(Lag(2))
    assert rpc("eth_getLogs", [query]) == added


def test_lies(anvil: Anvil, proxy: RpcProxy, rpc: JsonRpc, app: str):
    assert _logs(rpc, app)
    proxy.behave(NoLogs())
    assert _logs(rpc, app) == []
    proxy.behave(Lie())
    assert not _allows(rpc, app)
    assert _logs(rpc, app)
    proxy.behave(OtherChain(8453))
    assert rpc("eth_chainId") == hex(8453)
    proxy.behave(Pass())
    assert _allows(rpc, app)
    assert rpc("eth_chainId") == hex(anvil.chain_id)


def test_long_ranges_of_logs_are_refused(proxy: RpcProxy, rpc: JsonRpc, app: str):
    proxy.behave(RangeLimit(3))
    head = _number(rpc)
    assert rpc("eth_getLogs", [{"address": app, "fromBlock": hex(head - 2), "toBlock": "latest"}])
    with pytest.raises(RpcError, match="limited to a 3 range") as refused:
        rpc("eth_getLogs", [{"address": app, "fromBlock": hex(head - 3), "toBlock": hex(head)}])
    assert refused.value.code == -32614


@pytest.mark.parametrize(
    ("text", "behaviour"),
    [
        ("pass", Pass()),
        ("error:503", Fail(503)),
        ("busy:9", Fail(429, 9)),
        ("lag:5", Lag(5)),
        ("other-chain:10", OtherChain(10)),
        ("range-limit:1000", RangeLimit(1000)),
    ],
)
def test_behaviours_have_names(text: str, behaviour: object):
    assert parse_behaviour(text) == behaviour


@pytest.mark.parametrize("text", ["", "lag", "lag:x", "pass:3", "sulk"])
def test_an_unknown_behaviour_is_refused(text: str):
    with pytest.raises(ValueError):  # noqa: PT011 - int() words one of them
        parse_behaviour(text)
