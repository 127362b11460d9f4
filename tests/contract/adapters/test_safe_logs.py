"""Executions and approved hashes of real Safes in every supported version, and logs as a node must not answer them."""

import pytest
from eth_utils.crypto import keccak

from sandbox.chain.accounts import DEPLOYER, OUTSIDER, OWNERS
from sandbox.chain.local import LocalChain, encode_call
from sandbox.chain.safes import (
    SafeTx,
    SafeVersion,
    approve_and_execute,
    deploy_safe,
    execute,
    next_nonce,
    owner_sign,
    safe_tx_hash,
)
from service.adapters.chain import JsonRpcChain
from service.domain.chain import Block, SafeExecution
from service.domain.errors import Nonsense
from service.domain.signatures import SignatureKind, tally
from tests.support.builders import SAFE
from tests.support.hostile_rpc import always, chain_of
from tests.support.rpc_nodes import Node

EACH_VERSION = pytest.mark.parametrize("version", ["1.3.0", "1.4.1", "1.5.0"])
HASH = "0x" + "9f" * 32
SUCCESS = "0x" + keccak(text="ExecutionSuccess(bytes32,uint256)").hex()
FAILURE = "0x" + keccak(text="ExecutionFailure(bytes32,uint256)").hex()
NO_PAYMENT = "00" * 32


def told(chain: JsonRpcChain, safe: str) -> list[SafeExecution]:
    return list(chain.executions(safe, 0, chain.view().head.number))


@pytest.mark.chain
@EACH_VERSION
def test_success_and_failure_in_the_encoding_of_each_version(
    local: LocalChain, chain: JsonRpcChain, version: SafeVersion
):
    safe = deploy_safe(local, version)
    fine = SafeTx(safe, b"", next_nonce(local, safe))
    # With safeTxGas a failing call uses up the nonce instead of reverting everything.
    failing = SafeTx(
        safe, encode_call("removeOwner(address,address,uint256)", *[safe] * 2, 9), fine.nonce + 1, safe_tx_gas=1
    )
    receipts = []
    for tx in (fine, failing):
        digest = safe_tx_hash(local.chain_id, safe, tx)
        receipts.append(execute(local, safe, tx, {owner.address: owner_sign(digest, owner) for owner in OWNERS[:2]}))

    assert [(one.safe_tx_hash, one.success, one.transaction_hash) for one in told(chain, safe)] == [
        ("0x" + safe_tx_hash(local.chain_id, safe, tx).hex(), success, receipt["transactionHash"])
        for tx, success, receipt in zip((fine, failing), (True, False), receipts, strict=True)
    ]


@pytest.mark.chain
def test_what_a_module_does_uses_no_nonce_and_is_left_out(local: LocalChain, chain: JsonRpcChain):
    safe = deploy_safe(local)
    approve_and_execute(local, safe, safe, encode_call("enableModule(address)", OUTSIDER.address))
    call = encode_call("execTransactionFromModule(address,uint256,bytes,uint8)", safe, 0, b"", 0)
    assert local.send(OUTSIDER.address, safe, call)["logs"]

    assert len(told(chain, safe)) == 1


@pytest.mark.chain
@EACH_VERSION
def test_hashes_approved_on_chain_execute_without_any_service(
    local: LocalChain, chain: JsonRpcChain, version: SafeVersion
):
    safe = deploy_safe(local, version)
    tx = SafeTx(safe, b"", next_nonce(local, safe))
    digest = safe_tx_hash(local.chain_id, safe, tx)
    tx_hash, owners = "0x" + digest.hex(), [owner.address for owner in OWNERS]
    for owner in owners[:2]:
        local.send(owner, safe, encode_call("approveHash(bytes32)", digest))
    approved = chain.approved_hashes(safe, tx_hash, owners, chain.view().head)
    assert tally(tx_hash, [], owners, approved).signed == dict.fromkeys(owners[:2], SignatureKind.APPROVED_HASH)

    on_chain = {owner: bytes(12) + bytes.fromhex(owner[2:]) + bytes(32) + b"\x01" for owner in approved}
    execute(local, safe, tx, on_chain, sender=DEPLOYER.address)

    assert [one.safe_tx_hash for one in told(chain, safe)] == [tx_hash]


def log(**changes: object) -> dict[str, object]:
    members = {
        "address": SAFE,
        "topics": [SUCCESS, HASH],
        "data": "0x" + NO_PAYMENT,
        "blockNumber": "0x5f",
        "blockHash": "0x" + "22" * 32,
        "transactionHash": "0x" + "33" * 32,
        "logIndex": "0x1",
        "removed": False,
    }
    return members | changes


def executions(*logs: object) -> list[tuple[str, bool]]:
    with chain_of(always(list(logs))) as chain:
        return [(one.safe_tx_hash, one.success) for one in chain.executions(SAFE, 90, 100)]


def test_both_encodings_in_order():
    plain = log(topics=[FAILURE], data="0x" + "12" * 32 + NO_PAYMENT, logIndex="0x0")
    assert executions(log(), plain) == [("0x" + "12" * 32, False), (HASH, True)]


@pytest.mark.parametrize(
    "changes",
    [
        {"removed": True},
        {"topics": [SUCCESS]},
        {"topics": [SUCCESS, HASH, HASH], "data": "0x"},
        {"data": "0x" + NO_PAYMENT * 2},
        {"data": "0x1234"},
        {"data": "0x"},
    ],
)
def test_foreign_shapes_are_left_out(changes: dict[str, object]):
    assert executions(log(**changes)) == []


@pytest.mark.parametrize(
    "changes", [{"address": OUTSIDER.address}, {"topics": [HASH]}, {"topics": []}, {"blockNumber": "0x65"}]
)
def test_logs_that_were_not_asked_for_are_nonsense(changes: dict[str, object]):
    with pytest.raises(Nonsense):
        executions(log(**changes))


def test_a_wide_range_is_asked_for_in_pieces():
    node = Node(most_blocks=2000)
    with chain_of(node) as chain:
        assert list(chain.executions(SAFE, 0, 4500)) == []
    taken = [(first, last) for first, last in node.ranges() if last - first < 2000]
    assert [first for first, _ in taken] == [0, *(last + 1 for _, last in taken[:-1])]
    assert taken[-1][1] == 4500


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("lie", [[], [log(topics=[SUCCESS, "0x" + "66" * 32])]], ids=["omits", "makes up"])
def test_one_of_three_that_lies_about_executions_is_outvoted(place: int, lie: list[object]):
    others = [always([log()]), always([log()])]
    with chain_of(*others[:place], always(lie), *others[place:], agreement=2) as chain:
        assert [one.safe_tx_hash for one in chain.executions(SAFE, 90, 100)] == [HASH]


@pytest.mark.parametrize("answer", ["0x12", "0x"])
def test_an_approved_hash_that_is_no_number_is_nonsense(answer: str):
    with chain_of(always(answer)) as chain, pytest.raises(Nonsense):
        chain.approved_hashes(SAFE, HASH, [OUTSIDER.address], Block(1, HASH))
