"""The chain adapter on a real anvil with real Safe contracts and DstackApp contracts."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from eth_utils.crypto import keccak

from sandbox.anvil import Anvil
from sandbox.chain.accounts import DEPLOYER, OUTSIDER
from sandbox.chain.apps import Generation, deploy_dstack_app, transfer_to_safe
from sandbox.chain.local import LocalChain, encode_call
from sandbox.chain.safes import approve_and_execute, deploy_safe
from service.adapters.chain import JsonRpcChain
from service.domain.calls import add_compose_hash
from service.domain.chain import Allowed, AppOwnership, Block, FactKind
from service.domain.errors import Refused, StateUnavailable, Unreachable
from service.domain.finality import FINALIZED, SAFE, Confirmations, Finality
from service.domain.reasons import Reason
from tests.support.hostile_http import Counting

pytestmark = pytest.mark.chain

HASH = bytes.fromhex("9f" * 32)
DEVICE = bytes.fromhex("7b" * 32)
HASH_TEXT, DEVICE_TEXT = "0x" + HASH.hex(), "0x" + DEVICE.hex()


def head(chain: JsonRpcChain) -> Block:
    return chain.view().head


def app_call(local: LocalChain, app: str, signature: str, *arguments: object) -> str:
    return str(local.send(DEPLOYER.address, app, encode_call(signature, *arguments))["transactionHash"])


def reorg(anvil: Anvil, depth: int) -> None:
    """Drop blocks for as many others; without a transaction anvil can mine the very same blocks again."""
    transfer = {"from": OUTSIDER.address, "to": OUTSIDER.address, "value": "0x1"}
    anvil.rpc("anvil_reorg", [depth, [[transfer, 0]]])


@pytest.fixture
def app(local: LocalChain) -> str:
    return deploy_dstack_app(local)


@pytest.mark.parametrize(
    ("finality", "behind"),
    [(Confirmations(0), 0), (Confirmations(3), 3), (Confirmations(500), 20), (SAFE, 1), (FINALIZED, 2)],
)
def test_view_follows_the_finality_setting(anvil: Anvil, finality: Finality, behind: int) -> None:
    anvil.rpc("anvil_mine", [20])
    chain = JsonRpcChain(anvil.chain_id, [anvil.rpc_url], finality)
    view = chain.view()
    number = int(anvil.rpc("eth_blockNumber"), 16)
    assert view.head == Block(number, anvil.rpc("eth_getBlockByNumber", [hex(number), False])["hash"])
    expected = max(0, number - behind) if behind != 20 else 0
    assert view.final == Block(expected, anvil.rpc("eth_getBlockByNumber", [hex(expected), False])["hash"])
    chain.close()


def test_a_tick_on_the_next_block_takes_two_http_requests(
    anvil: Anvil, chain: JsonRpcChain, counting: Counting
) -> None:
    anvil.rpc("anvil_mine", [5])
    chain.view()
    for mined, expected in ((0, 1), (1, 1), (1, 1), (4, 2), (4, 1)):
        anvil.rpc("anvil_mine", [hex(mined)])
        counting.reset()
        view = chain.view()
        assert (mined, counting.requests) == (mined, expected)
        assert view.final.number == view.head.number - 2
        assert view.final.hash == anvil.rpc("eth_getBlockByNumber", [hex(view.final.number), False])["hash"]
        chain.facts(view.final.number, view.head.number)
        assert counting.requests == expected + 1


def test_view_after_a_reorg_is_of_the_new_branch(anvil: Anvil, chain: JsonRpcChain) -> None:
    anvil.rpc("anvil_mine", [10])
    before = chain.view()
    reorg(anvil, 4)
    after = chain.view()
    assert after.head.number == before.head.number
    assert after.head.hash != before.head.hash
    assert after.final.hash != before.final.hash
    assert after.final.hash == anvil.rpc("eth_getBlockByNumber", [hex(after.final.number), False])["hash"]


def test_block_by_number_and_none_above_the_head(chain: JsonRpcChain) -> None:
    top = head(chain)
    assert chain.block(top.number) == top
    assert chain.block(top.number + 1) is None


@pytest.mark.parametrize("generation", ["one-step", "two-step"])
def test_facts_hold_every_allowlist_event_in_order(
    local: LocalChain, chain: JsonRpcChain, generation: Generation
) -> None:
    app = deploy_dstack_app(local, generation)
    first = head(chain).number + 1
    sent = [
        (FactKind.HASH_ADDED, app_call(local, app, "addComposeHash(bytes32)", HASH), HASH_TEXT),
        (FactKind.DEVICE_ADDED, app_call(local, app, "addDevice(bytes32)", DEVICE), DEVICE_TEXT),
        (FactKind.ANY_DEVICE_SET, app_call(local, app, "setAllowAnyDevice(bool)", True), f"0x{1:064x}"),
        (FactKind.HASH_REMOVED, app_call(local, app, "removeComposeHash(bytes32)", HASH), HASH_TEXT),
        (FactKind.DEVICE_REMOVED, app_call(local, app, "removeDevice(bytes32)", DEVICE), DEVICE_TEXT),
    ]
    facts = chain.facts(first, head(chain).number)
    assert [(fact.kind, fact.transaction_hash, fact.value) for fact in facts] == sent
    assert {fact.app_contract for fact in facts} == {app}
    assert [fact.block for fact in facts] == [chain.block(fact.block.number) for fact in facts]
    assert [fact.kind for fact in chain.facts(first + 1, first + 2)] == [FactKind.DEVICE_ADDED, FactKind.ANY_DEVICE_SET]
    assert chain.facts(first, first - 1) == ()


def test_look_alike_logs_of_strangers_do_not_stop_the_scan(local: LocalChain, chain: JsonRpcChain, app: str) -> None:
    first = head(chain).number + 1
    topic = b"\x7f" + keccak(text="ComposeHashAdded(bytes32)")
    indexed = b"\x7f" + HASH + topic + bytes.fromhex("60006000a200")  # LOG2: the hash as an indexed parameter
    without_data = topic + bytes.fromhex("60006000a100")  # LOG1 without data
    too_long = topic + bytes.fromhex("60406000a100")  # LOG1 with 64 bytes of data
    for creation_code in (indexed, without_data, too_long):
        local.send(OUTSIDER.address, None, creation_code)
    app_call(local, app, "addComposeHash(bytes32)", HASH)
    assert [fact.app_contract for fact in chain.facts(first, head(chain).number)] == [app]


def test_allowed_is_hash_and_device_at_one_block(local: LocalChain, chain: JsonRpcChain, app: str) -> None:
    expected: list[tuple[Block, Allowed]] = []
    for signature, argument, state in (
        ("removeDevice(bytes32)", DEVICE, Allowed(compose_hash=False, device=False)),
        ("addComposeHash(bytes32)", HASH, Allowed(compose_hash=True, device=False)),
        ("addDevice(bytes32)", DEVICE, Allowed(compose_hash=True, device=True)),
        ("removeDevice(bytes32)", DEVICE, Allowed(compose_hash=True, device=False)),
        ("setAllowAnyDevice(bool)", True, Allowed(compose_hash=True, device=True)),
        ("removeComposeHash(bytes32)", HASH, Allowed(compose_hash=False, device=True)),
    ):
        app_call(local, app, signature, argument)
        expected.append((head(chain), state))
    for at, state in expected:
        assert chain.allowed(app, HASH_TEXT, DEVICE_TEXT, at) == state


def test_allowed_takes_one_http_request(chain: JsonRpcChain, counting: Counting, app: str) -> None:
    at = head(chain)
    counting.reset()
    chain.allowed(app, HASH_TEXT, DEVICE_TEXT, at)
    assert (counting.requests, counting.calls) == (1, 4)  # with the proof that it is this chain


def test_state_of_a_dropped_or_unknown_block_is_unavailable(anvil: Anvil, chain: JsonRpcChain, app: str) -> None:
    anvil.rpc("anvil_mine", [5])
    dropped = head(chain)
    reorg(anvil, 3)
    for at in (dropped, Block(dropped.number, "0x" + "ab" * 32)):
        for read in (
            lambda at=at: chain.allowed(app, HASH_TEXT, DEVICE_TEXT, at),
            lambda at=at: chain.ownership(app, at),
            lambda at=at: chain.safe(app, at),
            lambda at=at: chain.simulate(OUTSIDER.address, app, "0x", at),
        ):
            with pytest.raises(StateUnavailable):
                read()


def test_allowed_without_a_dstack_app_is_refused_not_no(local: LocalChain, chain: JsonRpcChain) -> None:
    reasons = {OUTSIDER.address: Reason.APP_CONTRACT_MISSING, deploy_safe(local): Reason.APP_CONTRACT_FOREIGN}
    at = head(chain)
    for nothing, reason in reasons.items():
        with pytest.raises(Refused) as refused:
            chain.allowed(nothing, HASH_TEXT, DEVICE_TEXT, at)
        assert refused.value.reason is reason


def test_allowed_of_an_app_younger_than_the_block_waits(local: LocalChain, chain: JsonRpcChain) -> None:
    before = head(chain)
    app = deploy_dstack_app(local)
    with pytest.raises(StateUnavailable, match="younger"):
        chain.allowed(app, HASH_TEXT, DEVICE_TEXT, before)


@pytest.mark.parametrize("generation", ["one-step", "two-step"])
def test_ownership_of_both_generations(local: LocalChain, chain: JsonRpcChain, generation: Generation) -> None:
    safe = deploy_safe(local)
    app = deploy_dstack_app(local, generation)
    assert chain.ownership(app, head(chain)) == AppOwnership(True, DEPLOYER.address, None)
    app_call(local, app, "transferOwnership(address)", safe)
    two_steps = generation == "two-step"
    pending = AppOwnership(True, DEPLOYER.address, safe) if two_steps else AppOwnership(True, safe, None)
    assert chain.ownership(app, head(chain)) == pending
    if two_steps:
        approve_and_execute(local, safe, app, encode_call("acceptOwnership()"))
    assert chain.ownership(app, head(chain)) == AppOwnership(True, safe, None)


def test_simulate_says_in_words_why_it_would_revert(local: LocalChain, chain: JsonRpcChain) -> None:
    safe = deploy_safe(local)
    app = deploy_dstack_app(local)
    data = "0x" + add_compose_hash(HASH_TEXT).hex()
    before = head(chain)
    reason = chain.simulate(safe, app, data, before)
    assert reason == f"OwnableUnauthorizedAccount: the caller {safe} is not the owner of the app contract"
    transfer_to_safe(local, app, safe)
    assert chain.simulate(safe, app, data, head(chain)) is None
    assert chain.simulate(safe, app, data, before) == reason
    assert chain.simulate(safe, app, "0x12345678", head(chain)) == "reverted without a reason"


@pytest.fixture
def other_chain() -> Iterator[Anvil]:
    with Anvil(chain_id=8453) as anvil:
        yield anvil


DEAD = "http://127.0.0.1:9"


def test_chain_id_check(anvil: Anvil, other_chain: Anvil) -> None:
    def check(*urls: str) -> int:
        with closing(JsonRpcChain(31337, urls, FINALIZED, timeout=5)) as chain:
            return chain.check_chain_id()

    assert check(anvil.rpc_url) == 31337
    assert check(DEAD, anvil.rpc_url) == 31337
    assert check(anvil.rpc_url, DEAD, other_chain.rpc_url) == 8453
    with pytest.raises(Unreachable):
        check(DEAD)


def test_endpoints_that_are_dead_or_serve_another_chain_are_passed_over(anvil: Anvil, other_chain: Anvil) -> None:
    chain = JsonRpcChain(31337, [DEAD, other_chain.rpc_url, anvil.rpc_url], Confirmations(0))
    assert chain.view().head.hash == anvil.rpc("eth_getBlockByNumber", ["latest", False])["hash"]
    wrong = JsonRpcChain(31337, [other_chain.rpc_url], Confirmations(0))
    with pytest.raises(Unreachable, match="serves chain 8453, not 31337"):
        wrong.view()
    with pytest.raises(Unreachable, match="serves chain 8453, not 31337"):
        wrong.facts(0, 1)
    chain.close()
    wrong.close()


def test_an_endpoint_that_comes_back_is_used(other_chain: Anvil) -> None:
    port = other_chain.port
    chain = JsonRpcChain(8453, [other_chain.rpc_url], Confirmations(0), timeout=5)
    assert chain.view().head.number == 0
    other_chain.stop()
    with pytest.raises(Unreachable) as fault:
        chain.view()
    assert fault.value.reason is Reason.RPC_UNREACHABLE
    with Anvil(chain_id=1, port=port), pytest.raises(Unreachable, match="serves chain 1, not 8453"):
        chain.view()  # another chain at the same address is noticed
    with Anvil(chain_id=8453, port=port):
        assert chain.view().head.number == 0
    chain.close()
