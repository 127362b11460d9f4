"""How the service follows the chain: lag, reorganisations, changes of owners, restarts."""

from pathlib import Path

import pytest
from eth_utils.crypto import keccak

from sandbox.anvil import Anvil
from sandbox.chain.accounts import DELEGATE, OUTSIDER, OWNER_ADDRESSES, OWNERS
from sandbox.chain.apps import deploy_dstack_app
from sandbox.chain.local import encode_call
from sandbox.chain.safes import SafeTx, SafeVersion, approve_and_execute, deploy_safe, execute
from tests.support.safe_service import SafeWorld, safe_world

pytestmark = pytest.mark.chain
TARGET = OUTSIDER.address
OWNER, SECOND_OWNER, THIRD_OWNER = OWNERS
EXECUTION_FIELDS = (
    "executionDate", "blockNumber", "transactionHash", "executor", "isSuccessful", "ethGasPrice", "gasUsed", "fee",
    "payment", "signatures",
)  # fmt: skip


def execute_signed(world: SafeWorld, safe: str, tx: SafeTx, *signers: int, gas: int | None = None) -> str:
    signatures = {OWNERS[i].address: world.sign(safe, tx, OWNERS[i]) for i in signers}
    return str(execute(world.chain, safe, tx, signatures, gas=gas)["transactionHash"])


@pytest.mark.parametrize("version", ["1.3.0", "1.4.1", "1.5.0"])
def test_success_failure_and_revert_of_an_execution(world: SafeWorld, version: SafeVersion):
    safe = deploy_safe(world.chain, version)
    app = deploy_dstack_app(world.chain)  # not the Safe's: every call of its reverts
    data = encode_call("addComposeHash(bytes32)", bytes(32))
    reverting, failing = SafeTx(to=app, data=data, nonce=0), SafeTx(to=app, data=data, nonce=0, safe_tx_gas=50_000)
    for tx in (reverting, failing):
        assert world.propose(safe, tx, OWNER).status_code == 201
    execute_signed(world, safe, reverting, 0, 1, gas=500_000)
    assert world.transaction(world.hash_of(safe, reverting))["isExecuted"] is False
    outer = execute_signed(world, safe, failing, 0, 1)
    found = world.transaction(world.hash_of(safe, failing))
    assert (found["isExecuted"], found["isSuccessful"], found["transactionHash"]) == (True, False, outer)
    assert {c["owner"] for c in found["confirmations"]} == {OWNER.address, SECOND_OWNER.address}
    assert world.listed(safe, executed="false", nonce__gte="1") == []
    assert world.listed(safe, executed="false") == [world.hash_of(safe, reverting)]


def test_a_reorganisation_makes_the_execution_null_again_and_keeps_the_confirmations(world: SafeWorld):
    safe = deploy_safe(world.chain)
    tx = SafeTx(to=TARGET, data=b"\x01", nonce=0)
    tx_hash = world.hash_of(safe, tx)
    world.propose(safe, tx, OWNER)
    before = world.chain.rpc("evm_snapshot")
    first = execute_signed(world, safe, tx, 0, 2)
    world.chain.rpc("anvil_mine", ["0x3"])
    executed = world.transaction(tx_hash)
    assert (executed["isExecuted"], executed["transactionHash"]) == (True, first)

    world.control.lag(paused=True)  # until its next check the service believes what it saw
    world.chain.rpc("evm_revert", [before])
    assert world.transaction(tx_hash)["isExecuted"] is True
    world.control.lag()
    pending = world.transaction(tx_hash)
    assert pending["isExecuted"] is False
    assert {name: pending[name] for name in EXECUTION_FIELDS} == dict.fromkeys(EXECUTION_FIELDS)
    assert {c["owner"] for c in pending["confirmations"]} == {OWNER.address, THIRD_OWNER.address}

    world.chain.rpc("anvil_mine", ["0x1"])
    second = execute_signed(world, safe, tx, 0, 1)
    again = world.transaction(tx_hash)
    assert (again["isExecuted"], again["transactionHash"]) == (True, second)
    assert again["blockNumber"] == executed["blockNumber"] + 1


def test_a_reorganisation_of_the_same_length_is_noticed(world: SafeWorld):
    safe = deploy_safe(world.chain)
    tx = SafeTx(to=TARGET, data=b"\x01", nonce=0)
    before = world.chain.rpc("evm_snapshot")
    execute_signed(world, safe, tx, 0, 1)
    assert world.transaction(world.hash_of(safe, tx))["isExecuted"] is True
    world.chain.rpc("evm_revert", [before])
    world.chain.rpc("anvil_mine", ["0x1", "0x5"])
    assert world.transaction(world.hash_of(safe, tx))["isExecuted"] is False


def test_on_chain_approvals_and_safes_of_vanished_blocks_go(world: SafeWorld):
    safe = deploy_safe(world.chain)
    tx = SafeTx(to=TARGET, data=b"\x01", nonce=0)
    tx_hash = world.hash_of(safe, tx)
    world.propose(safe, tx, OWNER)
    before = world.chain.rpc("evm_snapshot")
    world.chain.send(SECOND_OWNER.address, safe, encode_call("approveHash(bytes32)", bytes.fromhex(tx_hash[2:])))
    other = deploy_safe(world.chain, salt=5)
    assert len(world.transaction(tx_hash)["confirmations"]) == 2
    assert world.client.get(f"/api/v1/safes/{other}/").status_code == 200
    world.chain.rpc("evm_revert", [before])
    assert [c["owner"] for c in world.transaction(tx_hash)["confirmations"]] == [OWNER.address]
    assert world.client.get(f"/api/v1/safes/{other}/").status_code == 404
    assert world.client.get(f"/api/v1/owners/{OWNER.address}/safes/").json() == {"safes": [safe]}


def test_changes_of_owners_and_threshold_reach_pending_transactions_and_a_reorganisation_takes_them_back(
    world: SafeWorld,
):
    safe = deploy_safe(world.chain)
    tx = SafeTx(to=TARGET, data=b"\x01", nonce=7)
    tx_hash = world.hash_of(safe, tx)
    world.propose(safe, tx, THIRD_OWNER)
    world.wallet.add_delegate(safe, DELEGATE.address, THIRD_OWNER)
    before = world.chain.rpc("evm_snapshot")
    add = encode_call("addOwnerWithThreshold(address,uint256)", OUTSIDER.address, 3)
    approve_and_execute(world.chain, safe, safe, add)
    assert world.transaction(tx_hash)["confirmationsRequired"] == 3
    world.chain.rpc("evm_revert", [before])
    assert world.transaction(tx_hash)["confirmationsRequired"] == 2

    remove = encode_call("removeOwner(address,address,uint256)", OWNER_ADDRESSES[1], OWNER_ADDRESSES[2], 1)
    approve_and_execute(world.chain, safe, safe, remove)
    left = world.transaction(tx_hash)
    assert (left["confirmationsRequired"], left["confirmations"]) == (1, [])
    refused = world.propose(safe, SafeTx(to=TARGET, data=b"\x02", nonce=7), DELEGATE)
    assert refused.json()["nonFieldErrors"][0].endswith("Delegates=set()")
    assert world.client.get("/api/v2/delegates/", params={"safe": safe}).json()["count"] == 0


def test_lagging_by_blocks_shows_executions_late(world: SafeWorld):
    safe = deploy_safe(world.chain)
    world.client.get("/api/v1/about/")
    world.control.lag(2)
    tx = SafeTx(to=TARGET, data=b"\x01", nonce=0)
    tx_hash = world.hash_of(safe, tx)
    world.propose(safe, tx, OWNER)
    execute_signed(world, safe, tx, 0, 1)
    assert world.client.get(f"/api/v1/safes/{safe}/").json()["nonce"] == "1"  # read live
    late = SafeTx(to=TARGET, data=b"\x02", nonce=0)
    assert world.propose(safe, late, OWNER).status_code == 201
    assert world.confirm(tx_hash, world.sign(safe, tx, THIRD_OWNER)).status_code == 201
    world.chain.rpc("anvil_mine", ["0x1"])
    assert world.transaction(tx_hash)["isExecuted"] is False
    world.chain.rpc("anvil_mine", ["0x1"])
    assert world.transaction(tx_hash)["isExecuted"] is True


def test_everything_survives_a_restart(anvil: Anvil, tmp_path: Path):
    database = tmp_path / "safe.sqlite"
    tx, missed = (SafeTx(to=TARGET, data=bytes([nonce]), nonce=nonce) for nonce in range(2))
    with safe_world(anvil.rpc_url, database) as world:
        safe = deploy_safe(world.chain)
        world.client.get("/api/v1/about/")
        world.wallet.add_delegate(safe, DELEGATE.address, OWNER)
        for one in (tx, missed):
            world.propose(safe, one, DELEGATE)
            world.confirm(world.hash_of(safe, one), world.sign(safe, one, SECOND_OWNER))
        execute_signed(world, safe, tx, 0, 1)
        before = [world.transaction(world.hash_of(safe, one)) for one in (tx, missed)]
        delegates = world.client.get("/api/v2/delegates/", params={"safe": safe}).json()
        ledger = world.control.ledger()["proposals"]
    with safe_world(anvil.rpc_url, database) as world:
        assert [world.transaction(world.hash_of(safe, one)) for one in (tx, missed)] == before
        assert world.client.get("/api/v2/delegates/", params={"safe": safe}).json() == delegates
        assert world.control.ledger()["proposals"] == ledger
    with safe_world(anvil.rpc_url, database) as world:
        world.control.lag(paused=True)
        execute_signed(world, safe, missed, 0, 1)
    with safe_world(anvil.rpc_url, database) as world:
        assert world.transaction(world.hash_of(safe, missed))["isExecuted"] is False  # controls survive too
        world.control.lag()
        assert world.transaction(world.hash_of(safe, missed))["isExecuted"] is True


def test_another_contracts_log_with_a_safes_topic_is_passed_over(world: SafeWorld):
    safe = deploy_safe(world.chain)
    # Runtime code that emits AddedOwner(address) without data: PUSH32 topic, PUSH0, PUSH0, LOG1.
    topic = keccak(text="AddedOwner(address)").hex()
    stranger = "0x00000000000000000000000000000000000000fE"
    world.chain.rpc("anvil_setCode", [stranger, f"0x7f{topic}5f5fa1"])
    assert len(world.chain.send(OWNER.address, stranger, b"")["logs"]) == 1
    assert world.client.get(f"/api/v1/safes/{safe}/").status_code == 200


def test_with_the_node_gone_what_is_known_is_still_told(tmp_path: Path):
    with Anvil() as anvil, safe_world(anvil.rpc_url, tmp_path / "safe.sqlite") as world:
        safe = deploy_safe(world.chain)
        tx = SafeTx(to=TARGET, data=b"\x01", nonce=0)
        world.propose(safe, tx, OWNER)
        anvil.stop()
        assert world.transaction(world.hash_of(safe, tx))["isExecuted"] is False
        assert world.client.get(f"/api/v1/safes/{safe}/").status_code == 503
