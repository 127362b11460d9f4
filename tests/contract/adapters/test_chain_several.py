"""One real chain behind three endpoints, of which one at a time misbehaves."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from sandbox.anvil import Anvil
from sandbox.chain.accounts import DEPLOYER, OUTSIDER
from sandbox.chain.apps import deploy_dstack_app
from sandbox.chain.local import LocalChain, encode_call
from service.adapters.chain import JsonRpcChain
from service.domain.chain import Allowed, FactKind
from service.domain.errors import StateUnavailable
from service.domain.finality import Confirmations
from tests.support.hostile_http import Behaviour, Request, RpcSays, Stall, rpc, serving

pytestmark = pytest.mark.chain

HASH, DEVICE = "0x" + "9f" * 32, "0x" + "7b" * 32
YES, NO = "0x" + f"{1:064x}", "0x" + f"{0:064x}"
Answer = Callable[[str, list[Any], Callable[[], Any]], Any]


def between(client: httpx.Client, anvil: Anvil, change: Answer) -> Callable[[Request], Behaviour]:
    """An endpoint before anvil: ``change`` gets method, parameters and what anvil would answer."""

    def answer(method: str, params: list[Any]) -> Any:
        def honest() -> Any:
            call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            told = client.post(anvil.rpc_url, json=call).json()
            if "error" in told:
                raise RpcSays(told["error"]["code"], told["error"]["message"], told["error"].get("data"))
            return told["result"]

        return change(method, params, honest)

    return rpc(answer)


def keeps_logs_back(method: str, _params: list[Any], honest: Callable[[], Any]) -> Any:
    return [] if method == "eth_getLogs" else honest()


def says_yes(method: str, _params: list[Any], honest: Callable[[], Any]) -> Any:
    return YES if method == "eth_call" else honest()


def says_no(method: str, _params: list[Any], honest: Callable[[], Any]) -> Any:
    return NO if method == "eth_call" else honest()


def gives_one_block(method: str, params: list[Any], honest: Callable[[], Any]) -> Any:
    if method == "eth_getLogs" and params[0]["fromBlock"] != params[0]["toBlock"]:
        raise RpcSays(-32600, "up to a 1 block range")
    return honest()


def is_stuck(method: str, params: list[Any], _honest: Callable[[], Any]) -> Any:
    if method == "eth_getBlockByNumber":
        number = 1 if params[0] == "latest" else int(params[0], 16)
        return {"number": hex(number), "hash": "0x" + f"{number:064x}"} if number <= 1 else None
    raise RpcSays(-32000, "header not found")


MISBEHAVIOURS: dict[str, Answer | Behaviour] = {
    "keeps logs back": keeps_logs_back,
    "says yes": says_yes,
    "says no": says_no,
    "gives one block": gives_one_block,
    "is stuck": is_stuck,
    "stalls": Stall(),
}


@contextmanager
def three(anvil: Anvil, odd: Answer | Behaviour) -> Iterator[JsonRpcChain]:
    """The chain over anvil, anvil by another name, and one that misbehaves, which comes first."""
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=20))
        behave = between(client, anvil, odd) if callable(odd) else (lambda _: odd)
        server = stack.enter_context(serving(behave))
        other = anvil.rpc_url.replace("127.0.0.1", "localhost")
        urls = [server.url, anvil.rpc_url, other]
        chain = JsonRpcChain(anvil.chain_id, urls, Confirmations(2), agreement=2, timeout=5)
        stack.callback(chain.close)
        yield chain


@pytest.mark.parametrize("odd", MISBEHAVIOURS.values(), ids=MISBEHAVIOURS)
def test_an_approval_is_seen_rightly_whatever_one_of_three_does(
    anvil: Anvil, local: LocalChain, odd: Answer | Behaviour
) -> None:
    app = deploy_dstack_app(local)
    with three(anvil, odd) as chain:
        before = chain.view().head
        assert not chain.allowed(app, HASH, DEVICE, before).compose_hash
        for call in ("addComposeHash(bytes32)", "addDevice(bytes32)"):
            argument = HASH if "Hash" in call else DEVICE
            local.send(DEPLOYER.address, app, encode_call(call, bytes.fromhex(argument[2:])))
        head = chain.view().head
        assert head.number == before.number + 2
        facts = chain.facts(before.number + 1, head.number)
        assert [fact.kind for fact in facts] == [FactKind.HASH_ADDED, FactKind.DEVICE_ADDED]
        assert chain.allowed(app, HASH, DEVICE, head) == Allowed(compose_hash=True, device=True)
        assert not chain.allowed(app, HASH, DEVICE, before).compose_hash


@pytest.mark.parametrize("odd", MISBEHAVIOURS.values(), ids=MISBEHAVIOURS)
def test_a_reorg_is_seen_rightly_whatever_one_of_three_does(
    anvil: Anvil, local: LocalChain, odd: Answer | Behaviour
) -> None:
    app = deploy_dstack_app(local)
    anvil.rpc("anvil_mine", [4])
    with three(anvil, odd) as chain:
        dropped = chain.view().head
        transfer = {"from": OUTSIDER.address, "to": OUTSIDER.address, "value": "0x1"}
        anvil.rpc("anvil_reorg", [2, [[transfer, 0]]])
        now = chain.block(dropped.number)
        assert now is not None
        assert now != dropped
        assert chain.view().head == now
        with pytest.raises(StateUnavailable):
            chain.allowed(app, HASH, DEVICE, dropped)
