"""Our DstackApp contracts against the published interface of both generations."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import decode, encode
from eth_utils.abi import event_abi_to_log_topic, function_abi_to_4byte_selector
from eth_utils.crypto import keccak

from sandbox.chain.accounts import DEPLOYER, OUTSIDER, OWNERS
from sandbox.chain.apps import Generation, deploy_dstack_app, deploy_timelock, transfer_to_safe
from sandbox.chain.artifacts import artifact
from sandbox.chain.local import LocalChain, encode_call
from sandbox.chain.safes import ZERO_ADDRESS, approve_and_execute, deploy_safe
from sandbox.jsonrpc import RpcError

pytestmark = pytest.mark.chain

HASH = bytes.fromhex("ab" * 32)
DEVICE = bytes.fromhex("cd" * 32)
ROOT = Path(__file__).resolve().parents[3]
ADD_HASH = "addComposeHash(bytes32)"
ALLOWED_HASH = "allowedComposeHashes(bytes32)"

FUNCTIONS = {
    "addComposeHash": "dfc77223", "removeComposeHash": "67b3f22c", "addDevice": "2a819728",
    "removeDevice": "1d266200", "setAllowAnyDevice": "7c4beeb8", "disableUpgrades": "ec669036",
    "allowedComposeHashes": "2f6622e5", "allowedDeviceIds": "bf8b211b", "allowAnyDevice": "3440a16a",
    "isAppAllowed": "1e079198", "owner": "8da5cb5b", "transferOwnership": "f2fde38b",
    "renounceOwnership": "715018a6", "supportsInterface": "01ffc9a7", "upgradeToAndCall": "4f1ef286",
    "proxiableUUID": "52d1902d", "UPGRADE_INTERFACE_VERSION": "ad3cb1cc", "initialize": "187515ca",
}  # fmt: skip
NEWER_FUNCTIONS = {
    "setRequireTcbUpToDate": "6e4c7422", "requireTcbUpToDate": "0aa58c83", "version": "54fd4d50",
    "pendingOwner": "e30c3978", "acceptOwnership": "79ba5097", "initialize ": "9ed28193",
}  # fmt: skip
EVENTS = {
    "ComposeHashAdded": ("fecb34306dd9d8b785b54d65489d06afc8822a0893ddacedff40c50a4942d0af", 0),
    "ComposeHashRemoved": ("755b79bd4b0eeab344d032284a99003b2ddc018b646752ac72d681593a6e8947", 0),
    "DeviceAdded": ("67fc71ab96fe3fa3c6f78e9a00e635d591b7333ce611c0380bc577aac702243b", 0),
    "DeviceRemoved": ("e0862975ac517b0478d308012afabc4bc37c23874a18144d7f2dfb852ff95c2c", 0),
    "AllowAnyDeviceSet": ("bb2cdb6c7b362202d40373f87bc4788301cca658f91711ac1662e1ad2cba4a20", 0),
    "UpgradesDisabled": ("0e5daa943fcd7e7182d0e893d180695c2ea9f6f1b4a1c5432faf14cf17b774e8", 0),
    "OwnershipTransferred": ("8be0079c531659141344cd1fd0a4f28419497f9722a3daafe3b4186f6b6457e0", 2),
    "Initialized": ("c7f505b2f371ae2175ee4913f4499e1f2633a7b5936321eed1cdaeb6115181d2", 0),
    "Upgraded": ("bc7cd75a20ee27fd9adebab32041f755214dbc6bffa90cc0225b39da2e5c2d3b", 1),
}
NEWER_EVENTS = {
    "RequireTcbUpToDateSet": ("afae60561b2481a349b45b3a47357f70eef6ae67e5b6e1749d74de7f19a25aa1", 0),
    "PolicyChanged": ("341d3bc64e32172fc5bcf27b0f7f69dc5adc19af64b7aa1dee361e5883c32375", 3),
    "OwnershipTransferStarted": ("38d16b8cac22d99fc7c124b9cd0de2d3fa1faef420bfe791d8c362d765e22700", 2),
}
ERRORS = {
    "OwnableUnauthorizedAccount": "118cdaa7", "OwnableInvalidOwner": "1e4fbdf7", "InvalidInitialization": "f92ee8a9",
    "NotInitializing": "d7e6bcf8", "UUPSUnauthorizedCallContext": "e07c8dba",
    "UUPSUnsupportedProxiableUUID": "aa1d49a4", "ERC1967InvalidImplementation": "4c9c8ce3",
    "ERC1967NonPayable": "b398979f", "AddressEmptyCode": "9996b315", "FailedCall": "d6bda275",
}  # fmt: skip
BOTH = pytest.mark.parametrize("generation", ["one-step", "two-step"])


def entries(contract: str, kind: str) -> list[dict[str, Any]]:
    return [entry for entry in artifact(contract).abi if entry["type"] == kind]


@pytest.mark.parametrize(
    ("contract", "functions", "events"),
    [
        ("DstackAppV1", FUNCTIONS, EVENTS),
        ("DstackApp", {**FUNCTIONS, **NEWER_FUNCTIONS}, {**EVENTS, **NEWER_EVENTS}),
    ],
)
def test_the_interface_is_the_published_one_and_nothing_else(
    contract: str, functions: dict[str, str], events: dict[str, tuple[str, int]]
):
    selectors = {function_abi_to_4byte_selector(entry).hex() for entry in entries(contract, "function")}
    assert selectors == set(functions.values())
    topics = {
        entry["name"]: (event_abi_to_log_topic(entry).hex(), sum(field["indexed"] for field in entry["inputs"]))
        for entry in entries(contract, "event")
    }
    assert topics == events
    errors = {
        entry["name"]: function_abi_to_4byte_selector({**entry, "type": "function", "outputs": []}).hex()
        for entry in entries(contract, "error")
    }
    assert errors == ERRORS


@pytest.mark.node
def test_the_committed_artifacts_are_what_the_compiler_makes_of_the_sources():
    node = shutil.which("node")
    assert node
    command = [node, "sandbox/contracts/build.mjs", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def revert_data(error: RpcError) -> str:
    assert isinstance(error.data, str)
    return error.data.removeprefix("0x")


IS_ALLOWED = "isAppAllowed((address,bytes32,address,bytes32,bytes32,bytes32,bytes32,string,string[]))"


def boot_answer(chain: LocalChain, app: str, tcb: str = "UpToDate") -> tuple[bool, str]:
    # Two return values, where LocalChain.call reads one.
    zero = bytes(32)
    boot = (ZERO_ADDRESS, HASH, ZERO_ADDRESS, DEVICE, zero, zero, zero, tcb, [])
    data = "0x" + encode_call(IS_ALLOWED, boot).hex()
    answer = chain.rpc("eth_call", [{"to": app, "data": data}, "latest"])
    allowed, reason = decode(["bool", "string"], bytes.fromhex(answer[2:]))
    return allowed, reason


@BOTH
def test_allowlists_decide_what_boots_and_each_change_emits_its_event(chain: LocalChain, generation: Generation):
    app = deploy_dstack_app(chain, generation)
    assert boot_answer(chain, app) == (False, "Compose hash not allowed")
    receipt = chain.send(DEPLOYER.address, app, encode_call(ADD_HASH, HASH))
    added = [log for log in receipt["logs"] if log["topics"] == ["0x" + EVENTS["ComposeHashAdded"][0]]]
    assert [(log["address"].lower(), log["data"]) for log in added] == [(app.lower(), "0x" + HASH.hex())]
    assert len(receipt["logs"]) == (1 if generation == "one-step" else 2)
    assert boot_answer(chain, app) == (False, "Device not allowed")
    chain.send(DEPLOYER.address, app, encode_call("addDevice(bytes32)", DEVICE))
    assert boot_answer(chain, app) == (True, "")
    chain.send(DEPLOYER.address, app, encode_call("removeDevice(bytes32)", DEVICE))
    assert boot_answer(chain, app) == (False, "Device not allowed")
    chain.send(DEPLOYER.address, app, encode_call("setAllowAnyDevice(bool)", True))
    assert boot_answer(chain, app) == (True, "")
    chain.send(DEPLOYER.address, app, encode_call("removeComposeHash(bytes32)", HASH))
    assert boot_answer(chain, app) == (False, "Compose hash not allowed")


@BOTH
def test_adding_twice_and_removing_the_absent_succeed_with_their_events(chain: LocalChain, generation: Generation):
    app = deploy_dstack_app(chain, generation, compose_hash=HASH)
    again = chain.send(DEPLOYER.address, app, encode_call(ADD_HASH, HASH))
    assert again["logs"][0]["topics"] == ["0x" + EVENTS["ComposeHashAdded"][0]]
    absent = chain.send(DEPLOYER.address, app, encode_call("removeComposeHash(bytes32)", DEVICE))
    assert absent["logs"][0]["topics"] == ["0x" + EVENTS["ComposeHashRemoved"][0]]
    assert chain.call(app, ALLOWED_HASH, HASH, returns="bool")


@BOTH
def test_a_stranger_reverts_with_the_ownable_error(chain: LocalChain, generation: Generation):
    app = deploy_dstack_app(chain, generation)
    with pytest.raises(RpcError) as caught:
        chain.send(OUTSIDER.address, app, encode_call(ADD_HASH, HASH))
    expected = bytes.fromhex(ERRORS["OwnableUnauthorizedAccount"]) + encode(["address"], [OUTSIDER.address])
    assert revert_data(caught.value) == expected.hex()


@BOTH
def test_a_second_initialize_and_a_zero_owner_revert(chain: LocalChain, generation: Generation):
    app = deploy_dstack_app(chain, generation)
    again = encode_call("initialize(address,bool,bool,bytes32,bytes32)", OUTSIDER.address, False, False, HASH, HASH)
    with pytest.raises(RpcError) as caught:
        chain.send(DEPLOYER.address, app, again)
    assert revert_data(caught.value) == ERRORS["InvalidInitialization"]
    with pytest.raises(RpcError, match="invalid owner address"):
        deploy_dstack_app(chain, generation, ZERO_ADDRESS)


@BOTH
def test_interface_ids(chain: LocalChain, generation: Generation):
    app = deploy_dstack_app(chain, generation)
    for interface, supported in (("1e079198", True), ("8fd37527", True), ("01ffc9a7", True), ("ffffffff", False)):
        answer = chain.call(app, "supportsInterface(bytes4)", bytes.fromhex(interface), returns="bool")
        assert answer is supported


def test_one_step_ownership_moves_at_once_and_not_to_zero(chain: LocalChain):
    app = deploy_dstack_app(chain, "one-step")
    with pytest.raises(RpcError) as caught:
        chain.send(DEPLOYER.address, app, encode_call("transferOwnership(address)", ZERO_ADDRESS))
    assert revert_data(caught.value).startswith(ERRORS["OwnableInvalidOwner"])
    receipt = chain.send(DEPLOYER.address, app, encode_call("transferOwnership(address)", OUTSIDER.address))
    assert [log["topics"][0][2:] for log in receipt["logs"]] == [EVENTS["OwnershipTransferred"][0]]
    assert chain.call(app, "owner()", returns="address") == OUTSIDER.address
    with pytest.raises(RpcError) as missing:
        chain.call(app, "pendingOwner()", returns="address")
    assert revert_data(missing.value) == ""


def test_two_step_ownership_waits_for_the_new_owner_and_zero_cancels(chain: LocalChain):
    app = deploy_dstack_app(chain, "two-step")
    transfer = "transferOwnership(address)"
    receipt = chain.send(DEPLOYER.address, app, encode_call(transfer, OUTSIDER.address))
    assert [log["topics"][0][2:] for log in receipt["logs"]] == [NEWER_EVENTS["OwnershipTransferStarted"][0]]
    assert chain.call(app, "owner()", returns="address") == DEPLOYER.address
    assert chain.call(app, "pendingOwner()", returns="address") == OUTSIDER.address
    chain.send(DEPLOYER.address, app, encode_call(transfer, ZERO_ADDRESS))
    with pytest.raises(RpcError) as caught:
        chain.send(OUTSIDER.address, app, encode_call("acceptOwnership()"))
    assert revert_data(caught.value).startswith(ERRORS["OwnableUnauthorizedAccount"])
    chain.send(DEPLOYER.address, app, encode_call(transfer, OUTSIDER.address))
    chain.send(OUTSIDER.address, app, encode_call("acceptOwnership()"))
    assert chain.call(app, "owner()", returns="address") == OUTSIDER.address
    assert chain.call(app, "pendingOwner()", returns="address") == ZERO_ADDRESS


def test_the_newer_generation_has_a_tcb_rule_a_version_and_policy_events(chain: LocalChain):
    app = deploy_dstack_app(chain, "two-step", device=DEVICE, compose_hash=HASH)
    assert chain.call(app, "version()", returns="uint256") == 2
    assert boot_answer(chain, app, tcb="OutOfDate") == (True, "")
    receipt = chain.send(DEPLOYER.address, app, encode_call("setRequireTcbUpToDate(bool)", True))
    assert boot_answer(chain, app, tcb="OutOfDate") == (False, "TCB status is not up to date")
    assert boot_answer(chain, app) == (True, "")
    policy = receipt["logs"][1]["topics"][2]
    assert policy == "0xeb206ee4e1c06549322091bfcf2a5ff8658edc40901aa7f3af6f571a159471fb"


@pytest.mark.parametrize(
    ("name", "topic"),
    [
        ("compose-hash", "56bdf4352a9ceb1ba8f5c68066725c095e69c1d3f8a437290f0ac1da8fb4e19c"),
        ("device", "8e7eff7e4a57bd436b18f220111863326b17773a8b4460f9fabd87a334233046"),
        ("allow-any-device", "560720bbc77afadfad8faeab0a79cf66b13e5433c09dd9182d5d36413084a84e"),
        ("upgrades-disabled", "f6943036509aad7f2319e01f7ed528873bcbdaaf6d25921b03e395124e6a46d3"),
        ("implementation-upgrade", "dd3079240d4e002c905dcbcaf6b06d77e782afb127bbb837120b8c7fc6703da3"),
    ],
)
def test_policy_names_hash_to_the_published_topics(name: str, topic: str):
    assert keccak(text=name).hex() == topic
    assert f'"{name}"' in (ROOT / "sandbox/contracts/src/DstackAppBase.sol").read_text()


def test_a_live_app_is_upgraded_in_place_and_no_more_once_disabled(chain: LocalChain):
    app = deploy_dstack_app(chain, "one-step", device=DEVICE, compose_hash=HASH)
    (newer,) = chain.deploy_deterministic(artifact("DstackApp").bytecode)
    upgrade = encode_call("upgradeToAndCall(address,bytes)", newer, b"")
    chain.send(DEPLOYER.address, app, upgrade)
    assert chain.call(app, "pendingOwner()", returns="address") == ZERO_ADDRESS
    assert boot_answer(chain, app) == (True, "")
    receipt = chain.send(DEPLOYER.address, app, encode_call("disableUpgrades()"))
    assert receipt["logs"][0]["topics"][0][2:] == EVENTS["UpgradesDisabled"][0]
    with pytest.raises(RpcError, match="Upgrades are permanently disabled"):
        chain.send(DEPLOYER.address, app, upgrade)


@BOTH
def test_a_safe_comes_to_own_the_app_and_only_it_can_add_a_hash(chain: LocalChain, generation: Generation):
    safe = deploy_safe(chain)
    app = deploy_dstack_app(chain, generation)
    transfer_to_safe(chain, app, safe)
    assert chain.call(app, "owner()", returns="address") == safe
    with pytest.raises(RpcError):
        chain.send(DEPLOYER.address, app, encode_call(ADD_HASH, HASH))
    approve_and_execute(chain, safe, app, encode_call(ADD_HASH, HASH))
    assert chain.call(app, ALLOWED_HASH, HASH, returns="bool")


def test_a_timelock_owner_adds_a_hash_after_its_delay(chain: LocalChain):
    proposer = OWNERS[0].address
    timelock = deploy_timelock(chain, [proposer], [proposer], minimum_delay=3600)
    app = deploy_dstack_app(chain, "one-step", timelock)
    zero = bytes(32)
    call = (app, 0, encode_call(ADD_HASH, HASH), zero, zero)
    schedule = encode_call("schedule(address,uint256,bytes,bytes32,bytes32,uint256)", *call, 3600)
    perform = encode_call("execute(address,uint256,bytes,bytes32,bytes32)", *call)
    chain.send(proposer, timelock, schedule)
    with pytest.raises(RpcError):
        chain.send(proposer, timelock, perform)
    chain.rpc("evm_increaseTime", [3600])
    chain.rpc("evm_mine")
    chain.send(proposer, timelock, perform)
    assert chain.call(app, ALLOWED_HASH, HASH, returns="bool")
