"""The Safe contracts of the local chain: canonical addresses, hashes and signatures as the contracts see them."""

import pytest
from eth_abi.abi import encode

from sandbox.chain.accounts import DEPLOYER, OUTSIDER, OWNER_ADDRESSES, OWNERS
from sandbox.chain.apps import deploy_dstack_app, transfer_to_safe
from sandbox.chain.local import ChainError, LocalChain, encode_call
from sandbox.chain.safes import (
    DEPLOYMENTS,
    ZERO_ADDRESS,
    SafeTx,
    SafeVersion,
    approve_and_execute,
    deploy_safe,
    deploy_safe_contracts,
    execute,
    multi_send,
    next_nonce,
    owner_sign,
    safe_tx_hash,
)
from sandbox.jsonrpc import RpcError

pytestmark = pytest.mark.chain

HASH = bytes.fromhex("ab" * 32)
EACH_VERSION = pytest.mark.parametrize("version", ["1.3.0", "1.4.1", "1.5.0"])
GET_HASH = "getTransactionHash(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,uint256)"


def test_the_contracts_stand_at_their_canonical_addresses_and_deploying_again_changes_nothing(chain: LocalChain):
    deploy_safe_contracts(chain)
    # safe-deployments, network 1 (canonical); 1.3.0 and 1.4.1 as L2 singletons.
    assert {version: (d.singleton, d.factory, d.fallback_handler) for version, d in DEPLOYMENTS.items()} == {
        "1.3.0": (
            "0x3E5c63644E683549055b9Be8653de26E0B4CD36E",
            "0xa6B71E26C5e0845f74c812102Ca7114b6a896AB2",
            "0xf48f2B2d2a534e402487b3ee7C18c33Aec0Fe5e4",
        ),
        "1.4.1": (
            "0x29fcB43b46531BcA003ddC8FCB67FFE91900C762",
            "0x4e1DCf7AD4e460CfD30791CCC4F9c8a4f820ec67",
            "0xfd0732Dc9E303f09fCEf3a7388Ad10A83459Ec99",
        ),
        "1.5.0": (
            "0xEdd160fEBBD92E350D4D398fb636302fccd67C7e",
            "0x14F2982D601c9458F93bd70B218933A6f8165e7b",
            "0x3EfCBb83A4A7AfcB4F68D501E2c2203a38be77f4",
        ),
    }
    for deployment in DEPLOYMENTS.values():
        addresses = (deployment.singleton, deployment.factory, deployment.fallback_handler)
        assert all(chain.has_code(address) for address in (*addresses, deployment.multi_send_call_only))
    before = chain.rpc("eth_blockNumber")
    deploy_safe_contracts(chain)
    assert chain.rpc("eth_blockNumber") == before


@EACH_VERSION
def test_a_safe_is_what_was_asked_for_and_deployed_once(chain: LocalChain, version: SafeVersion):
    safe = deploy_safe(chain, version, salt=7)
    assert chain.call(safe, "VERSION()", returns="string") == version
    assert chain.call(safe, "getOwners()", returns="address[]") == list(OWNER_ADDRESSES)
    assert chain.call(safe, "getThreshold()", returns="uint256") == 2
    assert next_nonce(chain, safe) == 0
    assert deploy_safe(chain, version, salt=7) == safe
    assert deploy_safe(chain, version, [OUTSIDER.address], 1) != safe


@EACH_VERSION
def test_our_safe_tx_hash_is_the_contracts(chain: LocalChain, version: SafeVersion):
    safe = deploy_safe(chain, version)
    for tx in (
        SafeTx(to=OUTSIDER.address, data=b"", nonce=0),
        SafeTx(OUTSIDER.address, b"\x01" * 36, 5, 1, 1, 2, 3, 4, OWNERS[0].address, OWNERS[1].address),
    ):
        gas = (tx.safe_tx_gas, tx.base_gas, tx.gas_price, tx.gas_token, tx.refund_receiver)
        fields = (tx.to, tx.value, tx.data, tx.operation, *gas, tx.nonce)
        assert safe_tx_hash(chain.chain_id, safe, tx) == chain.call(safe, GET_HASH, *fields, returns="bytes32")


@EACH_VERSION
def test_two_owners_execute_whatever_order_they_signed_in(chain: LocalChain, version: SafeVersion):
    safe = deploy_safe(chain, version)
    app = deploy_dstack_app(chain, "one-step")
    transfer_to_safe(chain, app, safe)
    tx = SafeTx(to=app, data=encode_call("addComposeHash(bytes32)", HASH), nonce=next_nonce(chain, safe))
    tx_hash = safe_tx_hash(chain.chain_id, safe, tx)
    signatures = {owner.address: owner_sign(tx_hash, owner) for owner in (OWNERS[0], OWNERS[2])}
    receipt = execute(chain, safe, tx, dict(reversed(signatures.items())))
    assert receipt["status"] == "0x1"
    assert chain.call(app, "allowedComposeHashes(bytes32)", HASH, returns="bool")
    success = receipt["logs"][-1]
    assert success["topics"][0] == "0x442e715f626346e8c54381002da614f62bee8d27386535b2521ec8540898556e"
    if version == "1.3.0":
        assert (len(success["topics"]), success["data"]) == (1, "0x" + (tx_hash + bytes(32)).hex())
    else:
        assert (success["topics"][1:], success["data"]) == (["0x" + tx_hash.hex()], "0x" + bytes(32).hex())


@EACH_VERSION
def test_a_failing_inner_call_reverts_all_without_safe_tx_gas_and_is_a_failure_event_with_it(
    chain: LocalChain, version: SafeVersion
):
    safe = deploy_safe(chain, version)
    app = deploy_dstack_app(chain)  # not owned by the Safe
    data = encode_call("addComposeHash(bytes32)", HASH)
    bare = SafeTx(to=app, data=data, nonce=0)
    signatures = {o.address: owner_sign(safe_tx_hash(chain.chain_id, safe, bare), o) for o in OWNERS[:2]}
    with pytest.raises(RpcError) as caught:
        execute(chain, safe, bare, signatures)
    expected = "0x118cdaa7" if version == "1.5.0" else encode(["string"], ["GS013"]).hex()
    assert expected in caught.value.data
    assert execute(chain, safe, bare, signatures, gas=500_000)["status"] == "0x0"
    assert next_nonce(chain, safe) == 0

    with_gas = SafeTx(to=app, data=data, nonce=0, safe_tx_gas=50_000)
    signatures = {o.address: owner_sign(safe_tx_hash(chain.chain_id, safe, with_gas), o) for o in OWNERS[:2]}
    receipt = execute(chain, safe, with_gas, signatures)
    assert receipt["status"] == "0x1"
    failure = "0x23428b18acfb3ea64b08dc0c1d296ea9c09702c09083ca5272e64d115b687d23"
    assert receipt["logs"][-1]["topics"][0] == failure
    assert next_nonce(chain, safe) == 1


def test_one_signature_of_two_is_refused(chain: LocalChain):
    safe = deploy_safe(chain)
    tx = SafeTx(to=OUTSIDER.address, data=b"", nonce=0)
    one = {OWNERS[0].address: owner_sign(safe_tx_hash(chain.chain_id, safe, tx), OWNERS[0])}
    with pytest.raises(RpcError, match="GS020"):
        execute(chain, safe, tx, one)


@EACH_VERSION
def test_a_batch_through_multi_send_call_only_reaches_the_app_as_the_safe(chain: LocalChain, version: SafeVersion):
    safe = deploy_safe(chain, version)
    app = deploy_dstack_app(chain, "two-step")
    transfer_to_safe(chain, app, safe)
    calls = [(app, encode_call("addDevice(bytes32)", HASH)), (app, encode_call("addComposeHash(bytes32)", HASH))]
    batch = multi_send(calls)
    approve_and_execute(chain, safe, DEPLOYMENTS[version].multi_send_call_only, batch, operation=1)
    assert chain.call(app, "allowedDeviceIds(bytes32)", HASH, returns="bool")
    assert chain.call(app, "allowedComposeHashes(bytes32)", HASH, returns="bool")


def test_reading_where_no_contract_is_says_so(chain: LocalChain):
    with pytest.raises(ChainError, match="answered nothing"):
        chain.call(DEPLOYER.address, "owner()", returns="address")
    assert not chain.has_code(ZERO_ADDRESS)
