"""What the chain adapter reads of real Safes on a real anvil."""

from itertools import pairwise

import pytest
from eth_utils.crypto import keccak

from sandbox.anvil import Anvil
from sandbox.chain.accounts import OUTSIDER, OWNER_ADDRESSES
from sandbox.chain.apps import deploy_dstack_app, transfer_to_safe
from sandbox.chain.artifacts import safe_artifact
from sandbox.chain.local import LocalChain, encode_call
from sandbox.chain.safes import DEPLOYMENTS, SafeTx, SafeVersion, approve_and_execute, deploy_safe, next_nonce
from sandbox.chain.safes import safe_tx_hash as hash_of
from service.adapters.chain import JsonRpcChain
from service.domain.calls import approval_call, safe_tx_hash
from service.domain.chain import SafeState
from tests.support.builders import COMPOSE_HASH
from tests.support.hostile_http import Counting

pytestmark = pytest.mark.chain

GUARD, MODULE_GUARD = "0x" + "61" * 20, "0x" + "62" * 20
EACH_VERSION = pytest.mark.parametrize("version", ["1.3.0", "1.4.1", "1.5.0"])


def read(chain: JsonRpcChain, safe: str) -> SafeState:
    state = chain.safe(safe, chain.view().head)
    assert state is not None
    return state


def put(anvil: Anvil, contract: str, slot: str, value: str) -> None:
    anvil.rpc("anvil_setStorageAt", [contract, slot, "0x" + value[2:].zfill(64)])
    anvil.rpc("anvil_mine", [1])


def named_slot(name: str) -> str:
    return "0x" + keccak(text=name).hex()


def enable_modules(local: LocalChain, safe: str, count: int) -> list[str]:
    """The newest first, as the Safe lists them."""
    modules = [f"0x{number:040x}" for number in range(0x1000, 0x1000 + count)]
    for module in modules:
        approve_and_execute(local, safe, safe, encode_call("enableModule(address)", module))
    return modules[::-1]


@EACH_VERSION
def test_a_bare_safe(local: LocalChain, chain: JsonRpcChain, version: SafeVersion):
    safe = deploy_safe(local, version, OWNER_ADDRESSES, 2)
    assert read(chain, safe) == SafeState(
        address=safe,
        version=version,
        owners=OWNER_ADDRESSES,
        threshold=2,
        nonce=0,
        singleton=DEPLOYMENTS[version].singleton,
        l2=True,
        guard=None,
        modules=(),
        more_modules=False,
        module_guard=None,
    )


@EACH_VERSION
def test_modules_and_guards(anvil: Anvil, local: LocalChain, chain: JsonRpcChain, version: SafeVersion):
    safe = deploy_safe(local, version, OWNER_ADDRESSES, 2)
    modules = enable_modules(local, safe, 3)
    put(anvil, safe, named_slot("guard_manager.guard.address"), GUARD)
    put(anvil, safe, named_slot("module_manager.module_guard.address"), MODULE_GUARD)
    state = read(chain, safe)
    assert [module.lower() for module in state.modules] == modules
    assert not state.more_modules
    assert (state.guard, state.module_guard) == (GUARD, MODULE_GUARD)


@EACH_VERSION
def test_a_long_list_of_modules_is_told_to_go_on(local: LocalChain, chain: JsonRpcChain, version: SafeVersion):
    safe = deploy_safe(local, version, OWNER_ADDRESSES, 1)
    modules = enable_modules(local, safe, 11)
    state = read(chain, safe)
    assert [module.lower() for module in state.modules] == modules[:10]
    assert state.more_modules


def test_the_setters_of_the_newest_safe_write_where_we_read(local: LocalChain, chain: JsonRpcChain):
    safe = deploy_safe(local, "1.5.0", OWNER_ADDRESSES, 2)
    agrees = local.deploy(bytes.fromhex("600a600c600039600a6000f3" + "600160005260206000f3"))  # answers 1 to everything
    for setter in ("setModuleGuard(address)", "setGuard(address)"):
        approve_and_execute(local, safe, safe, encode_call(setter, agrees))
    state = read(chain, safe)
    assert (state.guard, state.module_guard) == (agrees, agrees)


@pytest.mark.parametrize(
    ("singleton", "artifact", "l2"),
    [
        ("0x41675C099F32341bf84BFc5382aF534df5C7461a", "Safe_V1_4_1", False),
        ("0xfb1bffC9d739B8D520DaF37dF666da4C687191EA", "GnosisSafe_V1_3_0", True),  # eip155
        ("0x69f4D1788e39c87893C980c06EdF4b7f686e2938", "GnosisSafe_V1_3_0", False),
        ("0x1111111111111111111111111111111111111111", "Safe_V1_4_1", None),
    ],
)
def test_the_singleton_tells_the_variant(
    anvil: Anvil, local: LocalChain, chain: JsonRpcChain, singleton: str, artifact: str, l2: bool | None
):
    safe = deploy_safe(local)
    anvil.rpc("anvil_setCode", [singleton, "0x" + safe_artifact(artifact).deployed_bytecode.hex()])
    put(anvil, safe, "0x0", singleton)
    state = read(chain, safe)
    assert (state.singleton, state.l2) == (singleton, l2)


def test_the_nonce_counts_executions(local: LocalChain, chain: JsonRpcChain):
    safe = deploy_safe(local)
    nonces = [read(chain, safe).nonce]
    for _ in range(2):
        approve_and_execute(local, safe, OUTSIDER.address, b"")
        nonces.append(read(chain, safe).nonce)
    assert [after - before for before, after in pairwise(nonces)] == [1, 1]
    assert nonces[-1] == next_nonce(local, safe)


def test_no_safe_is_none(local: LocalChain, chain: JsonRpcChain):
    at = chain.view().head
    assert chain.safe(OUTSIDER.address, at) is None
    deploy_safe(local)
    for version in DEPLOYMENTS.values():
        assert chain.safe(version.singleton, chain.view().head) is None  # a singleton has no owners


def test_it_takes_one_http_request(local: LocalChain, chain: JsonRpcChain, counting: Counting):
    safe = deploy_safe(local)
    at = chain.view().head
    counting.reset()
    chain.safe(safe, at)
    assert counting.requests == 1


@EACH_VERSION
@pytest.mark.parametrize("devices", [(), ("0x" + "7b" * 32,)])
def test_the_transaction_we_propose_executes(local: LocalChain, version: SafeVersion, devices: tuple[str, ...]):
    safe = deploy_safe(local, version)
    app = deploy_dstack_app(local)
    transfer_to_safe(local, app, safe)
    call = approval_call(app, COMPOSE_HASH, devices)
    nonce = next_nonce(local, safe)
    ours = SafeTx(to=call.to, data=bytes.fromhex(call.data[2:]), nonce=nonce, operation=call.operation)
    assert safe_tx_hash(local.chain_id, safe, call, nonce) == "0x" + hash_of(local.chain_id, safe, ours).hex()
    approve_and_execute(local, safe, ours.to, ours.data, operation=ours.operation)
    assert local.call(app, "allowedComposeHashes(bytes32)", bytes.fromhex(COMPOSE_HASH[2:]), returns="bool")
    for device in devices:
        assert local.call(app, "allowedDeviceIds(bytes32)", bytes.fromhex(device[2:]), returns="bool")
