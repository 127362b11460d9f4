"""Who may propose and confirm, and with which signatures."""

import time

import pytest
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from sandbox.chain.accounts import DELEGATE, OUTSIDER, OWNER_ADDRESSES, OWNERS
from sandbox.chain.local import encode_call
from sandbox.chain.safes import SafeTx, SafeVersion, deploy_safe, execute, owner_sign, safe_tx_preimage
from tests.support.safe_service import SafeWorld

pytestmark = pytest.mark.chain
TARGET = OUTSIDER.address
OWNER, SECOND_OWNER, THIRD_OWNER = OWNERS
EACH_VERSION = pytest.mark.parametrize("version", ["1.3.0", "1.4.1", "1.5.0"])


def test_a_delegates_proposal_is_its_delegators_and_counts_as_no_confirmation(world: SafeWorld):
    safe = deploy_safe(world.chain)
    tx = SafeTx(to=TARGET, data=b"\x01", nonce=0)
    assert world.propose(safe, tx, DELEGATE).status_code == 422
    world.wallet.add_delegate(safe, DELEGATE.address, SECOND_OWNER)
    assert world.propose(safe, tx, DELEGATE).status_code == 201
    found = world.transaction(world.hash_of(safe, tx))
    assert (found["proposer"], found["proposedByDelegate"]) == (SECOND_OWNER.address, DELEGATE.address)
    assert (found["confirmations"], found["trusted"], found["confirmationsRequired"]) == ([], True, 2)


def test_a_delegate_signs_itself_and_alone(world: SafeWorld):
    safe = deploy_safe(world.chain)
    world.wallet.add_delegate(safe, DELEGATE.address, OWNER)
    tx = SafeTx(to=TARGET, data=b"\x01", nonce=0)
    others = world.propose(safe, tx, DELEGATE, world.sign(safe, tx, OWNER))
    message = f"Signature does not match sender={DELEGATE.address}. Calculated owners=['{OWNER.address}']"
    assert (others.status_code, others.json()) == (422, {"nonFieldErrors": [message]})
    both = world.propose(safe, tx, DELEGATE, world.sign(safe, tx, DELEGATE) + world.sign(safe, tx, OWNER))
    assert both.json() == {"nonFieldErrors": ["Just one signature is expected if using delegates"]}
    unsigned = world.propose(safe, tx, DELEGATE, b"")
    assert unsigned.status_code == 201
    assert world.listed(safe) == []
    assert world.listed(safe, trusted="false") == [world.hash_of(safe, tx)]
    assert world.confirm(world.hash_of(safe, tx), world.sign(safe, tx, OWNER)).status_code == 201
    assert world.listed(safe) == [world.hash_of(safe, tx)]


def test_a_delegate_of_another_safe_is_nobody(world: SafeWorld):
    first, second = deploy_safe(world.chain), deploy_safe(world.chain, salt=1)
    world.wallet.add_delegate(first, DELEGATE.address, OWNER)
    refused = world.propose(second, SafeTx(to=TARGET, data=b"", nonce=0), DELEGATE)
    assert refused.json()["nonFieldErrors"][0].endswith("Delegates=set()")


def deletion_signature(world: SafeWorld, safe: str, tx: SafeTx, signer: LocalAccount) -> str:
    chain_id = world.chain.chain_id
    name = {"name": "Safe Transaction Service", "version": "1.0", "chainId": chain_id, "verifyingContract": safe}
    fields = [{"name": "safeTxHash", "type": "bytes32"}, {"name": "totp", "type": "uint256"}]
    message = {"safeTxHash": world.hash_of(safe, tx), "totp": int(time.time()) // 3600}
    signed = signer.sign_typed_data(domain_data=name, message_types={"DeleteRequest": fields}, message_data=message)
    return "0x" + bytes(signed.signature).hex()


def test_proposer_and_proposing_delegate_may_delete_a_pending_proposal_and_nobody_else(world: SafeWorld):
    safe = deploy_safe(world.chain)
    world.wallet.add_delegate(safe, DELEGATE.address, OWNER)
    tx = SafeTx(to=TARGET, data=b"", nonce=0)
    path = f"/api/v2/multisig-transactions/{world.hash_of(safe, tx)}/"

    def delete(signer: LocalAccount) -> int:
        body = {"safeTxHash": world.hash_of(safe, tx), "signature": deletion_signature(world, safe, tx, signer)}
        return world.client.request("DELETE", path, json=body).status_code

    for allowed in (DELEGATE, OWNER):
        world.propose(safe, tx, DELEGATE)
        assert delete(SECOND_OWNER) == 400
        assert delete(allowed) == 204
        assert delete(allowed) == 404
        assert world.listed(safe) == []
    world.propose(safe, tx, DELEGATE)
    gathered = {owner.address: world.sign(safe, tx, owner) for owner in (OWNER, SECOND_OWNER)}
    execute(world.chain, safe, tx, gathered)
    assert delete(DELEGATE) == 400


def test_one_more_owner_on_the_same_hash_adds_a_confirmation_and_changes_nothing_else(world: SafeWorld):
    safe = deploy_safe(world.chain)
    tx = SafeTx(to=TARGET, data=b"", nonce=0)
    tx_hash = world.hash_of(safe, tx)
    for _ in range(2):
        assert world.propose(safe, tx, OWNER).status_code == 201
    before = world.transaction(tx_hash)
    assert world.propose(safe, tx, SECOND_OWNER).status_code == 201
    after = world.transaction(tx_hash)
    assert [c["owner"] for c in before["confirmations"]] == [OWNER.address]
    assert [c["owner"] for c in after["confirmations"]] == [OWNER.address, SECOND_OWNER.address]
    unchanged = ("proposer", "origin", "submissionDate")
    assert [before[name] for name in unchanged] == [after[name] for name in unchanged]


def test_eth_sign_is_taken_and_bare_recovery_ids_are_not(world: SafeWorld):
    safe = deploy_safe(world.chain)
    tx = SafeTx(to=TARGET, data=b"", nonce=0)
    tx_hash = world.hash_of(safe, tx)
    assert world.propose(safe, tx, OWNER).status_code == 201
    digest = bytes.fromhex(tx_hash[2:])
    prefixed = owner_sign(keccak(b"\x19Ethereum Signed Message:\n32" + digest), SECOND_OWNER)
    eth_sign = prefixed[:64] + bytes([prefixed[64] + 4])
    assert world.confirm(tx_hash, prefixed).status_code == 400  # v 27/28 claims typed data
    assert world.confirm(tx_hash, eth_sign).status_code == 201
    plain = owner_sign(digest, THIRD_OWNER)
    bare = world.confirm(tx_hash, plain[:64] + bytes([plain[64] - 27]))
    assert bare.status_code == 400
    assert "is not an owner" in bare.json()["signature"][0]
    kinds = [c["signatureType"] for c in world.transaction(tx_hash)["confirmations"]]
    assert kinds == ["EOA", "ETH_SIGN"]
    gathered = {OWNER.address: world.sign(safe, tx, OWNER), SECOND_OWNER.address: eth_sign}
    assert execute(world.chain, safe, tx, gathered)["status"] == "0x1"  # the contract takes what the service took


def test_an_approved_hash_signature_holds_only_once_it_is_approved_on_chain(world: SafeWorld):
    safe = deploy_safe(world.chain)
    tx = SafeTx(to=TARGET, data=b"", nonce=0)
    tx_hash = world.hash_of(safe, tx)
    world.propose(safe, tx, OWNER)
    claimed = bytes(12) + bytes.fromhex(SECOND_OWNER.address[2:]) + bytes(32) + b"\x01"
    refused = world.confirm(tx_hash, claimed)
    assert refused.json() == {
        "signature": [f"Signature=0x{claimed.hex()} for owner={SECOND_OWNER.address} is not valid"]
    }
    approve = encode_call("approveHash(bytes32)", bytes.fromhex(tx_hash[2:]))
    receipt = world.chain.send(SECOND_OWNER.address, safe, approve)
    confirmations = {c["owner"]: c for c in world.transaction(tx_hash)["confirmations"]}
    assert set(confirmations) == {OWNER.address, SECOND_OWNER.address}
    approval = confirmations[SECOND_OWNER.address]
    assert approval["signatureType"] == "APPROVED_HASH"
    assert approval["signature"] == "0x" + claimed.hex()
    assert approval["transactionHash"] == receipt["transactionHash"]


@EACH_VERSION
def test_a_safe_that_owns_a_safe_signs_as_a_contract(world: SafeWorld, version: SafeVersion):
    chain = world.chain
    inner = deploy_safe(chain, version, threshold=1)
    safe = deploy_safe(chain, version, [OWNER_ADDRESSES[0], inner])
    tx = SafeTx(to=TARGET, data=b"", nonce=0)
    tx_hash = world.hash_of(safe, tx)
    assert world.propose(safe, tx, OWNER).status_code == 201
    # What the inner Safe signs: a SafeMessage of the preimage, from 1.5.0 on of the hash alone.
    preimage = safe_tx_preimage(chain.chain_id, safe, tx)
    message = keccak(preimage) if version == "1.5.0" else preimage
    digest = chain.call(inner, "getMessageHash(bytes)", message, returns="bytes32")

    def contract_signature(by_whom_signed: bytes) -> bytes:
        head = bytes(12) + bytes.fromhex(inner[2:]) + (65).to_bytes(32, "big") + b"\x00"
        return head + len(by_whom_signed).to_bytes(32, "big") + by_whom_signed

    wrong = world.confirm(tx_hash, contract_signature(owner_sign(digest, OUTSIDER)))
    assert (wrong.status_code, "is not valid" in wrong.text) == (400, True)
    right = contract_signature(owner_sign(digest, THIRD_OWNER))
    assert world.confirm(tx_hash, right).status_code == 201
    confirmation = world.transaction(tx_hash)["confirmations"][1]
    assert (confirmation["owner"], confirmation["signatureType"]) == (inner, "CONTRACT_SIGNATURE")
    assert confirmation["signature"] == "0x" + right.hex()


@EACH_VERSION
def test_a_nonce_once_used_takes_no_more_proposals(world: SafeWorld, version: SafeVersion):
    safe = deploy_safe(world.chain, version)
    done, late = (SafeTx(to=TARGET, data=bytes([number]), nonce=0) for number in range(2))
    receipt = execute(world.chain, safe, done, {o.address: world.sign(safe, done, o) for o in (OWNER, SECOND_OWNER)})
    outer = receipt["transactionHash"]
    again = f"Tx with safe-tx-hash={world.hash_of(safe, done)} for safe={safe} was already executed in tx-hash={outer}"
    assert world.propose(safe, done, OWNER).json() == {"nonFieldErrors": [again]}
    used = f"Tx with nonce=0 for safe={safe} already executed in tx-hash={outer}"
    assert world.propose(safe, late, OWNER).json() == {"nonFieldErrors": [used]}
    unproposed = world.transaction(world.hash_of(safe, done))
    assert (unproposed["proposer"], unproposed["isSuccessful"], unproposed["nonce"]) == (None, True, "0")
    assert {c["owner"] for c in unproposed["confirmations"]} == {OWNER.address, SECOND_OWNER.address}
