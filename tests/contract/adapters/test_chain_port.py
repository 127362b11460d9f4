"""What the steps may rely on, held against the real chain adapter on anvil and against the fake chain."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from sandbox.anvil import Anvil
from sandbox.chain.accounts import OUTSIDER, OWNERS
from sandbox.chain.local import LocalChain
from service.adapters.chain import JsonRpcChain
from service.domain.calls import MULTI_SEND_CALL_ONLY, MULTI_SEND_CODE_HASH, inner_calls
from service.domain.chain import Allowed, AppOwnership, Block, FactKind
from service.domain.errors import StateUnavailable
from service.domain.finality import Confirmations
from tests.support.chain_worlds import DEPTH, ChainWorld, FakeChainWorld, RealChainWorld

pytestmark = pytest.mark.chain

HASH, DEVICE, TRUE = "0x" + "9f" * 32, "0x" + "7b" * 32, f"0x{1:064x}"


@pytest.fixture
def real(anvil: Anvil, local: LocalChain) -> Iterator[RealChainWorld]:
    with closing(JsonRpcChain(anvil.chain_id, [anvil.rpc_url], Confirmations(DEPTH))) as chain:
        yield RealChainWorld(anvil, local, chain)


@pytest.fixture(params=["real", "fake"])
def world(request: pytest.FixtureRequest) -> ChainWorld:
    if request.param == "fake":
        return FakeChainWorld()
    real: RealChainWorld = request.getfixturevalue("real")
    return real


def test_the_view_and_its_blocks(world: ChainWorld):
    for mined in (5, 1, 1, 3):
        world.mine(mined)
        view = world.chain.view()
        assert view.final.number == view.head.number - DEPTH
        assert world.chain.block(view.head.number) == view.head
        assert world.chain.block(view.final.number) == view.final
        assert world.chain.block(view.head.number + 1) is None
    assert world.chain.chain_id == 31337


def test_one_more_block_comes_with_the_view(world: ChainWorld):
    world.mine(DEPTH + 5)
    head = world.chain.view().head.number
    for height in (0, head - DEPTH - 1, head - DEPTH, head - 1, head):
        view = world.chain.view(height)
        assert view.also == world.chain.block(height)
        assert view.final == world.chain.block(head - DEPTH)
    assert world.chain.view(head + 1).also is None
    assert world.chain.view().also is None


def test_facts_and_what_they_allow(world: ChainWorld):
    first = world.chain.view().head.number + 1
    told = [
        (FactKind.HASH_ADDED, HASH, Allowed(compose_hash=True, device=False)),
        (FactKind.DEVICE_ADDED, DEVICE, Allowed(compose_hash=True, device=True)),
        (FactKind.DEVICE_REMOVED, DEVICE, Allowed(compose_hash=True, device=False)),
        (FactKind.ANY_DEVICE_SET, TRUE, Allowed(compose_hash=True, device=True)),
        (FactKind.HASH_REMOVED, HASH, Allowed(compose_hash=False, device=True)),
    ]
    for kind, value, _ in told:
        world.log(kind, value)
    facts = world.chain.facts(first, world.chain.view().head.number)
    assert [(fact.kind, fact.value, fact.app_contract) for fact in facts] == [(*one[:2], world.app) for one in told]
    assert len({(fact.transaction_hash, fact.block.hash, fact.log_index) for fact in facts}) == len(told)
    for fact, (_, _, allowed) in zip(facts, told, strict=True):
        assert world.chain.allowed(world.app, HASH, DEVICE, fact.block) == allowed
        assert list(world.chain.facts(fact.block.number, fact.block.number)) == [fact]


def test_what_a_reorg_drops_is_gone(world: ChainWorld):
    world.mine(3)
    kept = world.chain.view().head
    world.log(FactKind.HASH_ADDED, HASH)
    world.mine(2)
    dropped = world.chain.view().head
    (fact,) = world.chain.facts(kept.number + 1, dropped.number)
    world.reorg(dropped.number - kept.number)
    head = world.chain.view().head
    assert world.chain.block(kept.number) == kept
    assert head.number == dropped.number
    assert world.chain.block(fact.block.number) != fact.block
    assert list(world.chain.facts(kept.number + 1, head.number)) == []
    assert not world.chain.allowed(world.app, HASH, DEVICE, head).compose_hash
    for gone in (fact.block, dropped, replace(head, hash="0x" + "ab" * 32)):
        with pytest.raises(StateUnavailable):
            world.chain.allowed(world.app, HASH, DEVICE, gone)
        with pytest.raises(StateUnavailable):
            world.chain.safe(world.safe, gone)
        with pytest.raises(StateUnavailable):
            world.chain.ownership(world.app, gone)
        with pytest.raises(StateUnavailable):
            world.chain.code_hash(MULTI_SEND_CALL_ONLY, gone)


def test_owner_and_safe(world: ChainWorld):
    at = world.chain.view().head
    ownership = world.chain.ownership(world.app, at)
    assert (ownership.has_code, ownership.owner, ownership.pending_owner) == (True, world.safe, None)
    assert (ownership.is_app, ownership.allows_any_device, ownership.requires_tcb_up_to_date) == (True, False, False)
    assert world.chain.ownership(OUTSIDER.address, at) == AppOwnership(False, None, None, is_app=False)
    assert world.chain.safe(OUTSIDER.address, at) is None
    safe = world.chain.safe(world.safe, at)
    assert safe is not None
    assert (safe.address, safe.version.partition("+")[0], safe.threshold) == (world.safe, "1.4.1", 2)
    assert set(safe.owners) == {owner.address for owner in OWNERS}
    assert (safe.singleton, safe.l2) == ("0x29fcB43b46531BcA003ddC8FCB67FFE91900C762", True)
    assert (safe.guard, safe.modules, safe.more_modules, safe.module_guard) == (None, (), False, None)


def test_an_app_that_allows_any_device(world: ChainWorld):
    for flag in (1, 0):
        world.log(FactKind.ANY_DEVICE_SET, f"0x{flag:064x}")
        assert world.chain.ownership(world.app, world.chain.view().head).allows_any_device == bool(flag)


def test_the_code_of_multi_send(world: ChainWorld):
    at = world.chain.view().head
    assert world.chain.code_hash(MULTI_SEND_CALL_ONLY, at) == MULTI_SEND_CODE_HASH
    assert world.chain.code_hash(OUTSIDER.address, at) is None


def test_the_nonce_counts_executions_at_each_block(world: ChainWorld):
    def nonce(at: Block) -> int:
        safe = world.chain.safe(world.safe, at)
        assert safe is not None
        return safe.nonce

    before = world.chain.view().head
    world.log(FactKind.HASH_ADDED, HASH)
    after = world.chain.view().head
    world.log(FactKind.HASH_ADDED, HASH)
    assert (nonce(after) - nonce(before), nonce(world.chain.view().head) - nonce(before)) == (1, 2)


def test_executions_in_the_order_of_the_chain(world: ChainWorld):
    first = world.chain.view().head.number + 1
    executed = [world.execute() for _ in range(3)]
    world.mine(2)
    found = world.chain.executions(world.safe, first, world.chain.view().head.number)
    assert [(one.safe_tx_hash, one.success) for one in found] == [(tx_hash, True) for tx_hash in executed]
    assert len({one.transaction_hash for one in found}) == 3
    for one in found:
        assert world.chain.block(one.block.number) == one.block
        assert list(world.chain.executions(world.safe, one.block.number, one.block.number)) == [one]
    assert list(world.chain.executions(world.app, first, first + 2)) == []
    assert list(world.chain.executions(world.safe, first + 1, first)) == []


def test_approved_hashes_at_each_block(world: ChainWorld):
    owners = [owner.address for owner in OWNERS]

    def approvers(at: Block, tx_hash: str = HASH) -> frozenset[str]:
        return world.chain.approved_hashes(world.safe, tx_hash, [*owners, OUTSIDER.address], at)

    before = world.chain.view().head
    world.approve_hash(2, HASH)
    between = world.chain.view().head
    world.approve_hash(0, HASH)
    after = world.chain.view().head
    assert [approvers(at) for at in (before, between, after)] == [set(), {owners[2]}, {owners[0], owners[2]}]
    assert approvers(after, DEVICE) == frozenset()
    with pytest.raises(StateUnavailable):
        approvers(replace(after, hash="0x" + "ab" * 32))


def test_simulation_by_owner_and_stranger(world: ChainWorld):
    at = world.chain.view().head
    for call in inner_calls(HASH, (DEVICE,)):
        assert world.chain.simulate(world.safe, world.app, call, at) is None
        reason = world.chain.simulate(OUTSIDER.address, world.app, call, at)
        assert reason is not None
        assert "OwnableUnauthorizedAccount" in reason
    assert world.chain.simulate(world.safe, world.app, "0x12345678", at) is not None
