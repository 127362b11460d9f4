"""Calls and hashes against safe-eth-py and against what a real Transaction Service accepted."""

import json
from pathlib import Path
from typing import Any

import pytest
from eth_utils.address import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st
from safe_eth.safe import SafeTx
from safe_eth.safe.multi_send import MultiSend

from service.domain.calls import (
    CALL,
    DELEGATECALL,
    MULTI_SEND_CALL_ONLY,
    SafeCall,
    add_compose_hash,
    add_device,
    approval_call,
    inner_calls,
    rejection_call,
    safe_tx_hash,
)
from service.domain.hexes import ZERO_ADDRESS
from tests.support.builders import APP, COMPOSE_HASH, DEVICE, SAFE

RECORDED_CHAIN_ID = 31337
RECORDED = Path(__file__).parents[2] / "vectors" / "safe" / "exchanges.jsonl"

addresses = st.binary(min_size=20, max_size=20).map(to_checksum_address)
calls = st.builds(
    SafeCall,
    to=addresses,
    data=st.binary(max_size=200).map(lambda data: "0x" + data.hex()),
    operation=st.sampled_from([CALL, DELEGATECALL]),
)


def accepted_proposals() -> list[Any]:
    """Bodies the service took, without gas and refund parameters of their own."""
    proposals = []
    for line in RECORDED.read_text().splitlines():
        exchange = json.loads(line)
        request, body = exchange["request"], exchange["request"]["body"]
        if exchange["response"]["status"] != 201 or not isinstance(body, dict):
            continue
        if "contractTransactionHash" not in body or any(int(body[gas]) for gas in ("value", "safeTxGas", "gasPrice")):
            continue
        safe = request["path"].split("/")[4]
        proposals.append(pytest.param(safe, body, id=exchange["id"]))
    return proposals


@pytest.mark.parametrize(("safe", "body"), accepted_proposals())
def test_hashes_are_those_the_service_accepted(safe: str, body: dict[str, Any]) -> None:
    call = SafeCall(body["to"], body["data"] or "0x", body["operation"])

    tx_hash = safe_tx_hash(RECORDED_CHAIN_ID, safe, call, int(body["nonce"]))

    assert tx_hash == body["contractTransactionHash"].lower()


def test_the_recording_holds_all_kinds_of_calls() -> None:
    bodies = [param.values[1] for param in accepted_proposals()]
    assert {body["operation"] for body in bodies} == {CALL, DELEGATECALL}
    assert any(not body["data"] for body in bodies)
    assert len(bodies) >= 15


@given(
    chain_id=st.integers(1, 2**63),
    safe=addresses,
    call=calls,
    nonce=st.integers(0, 2**63),
    version=st.sampled_from(["1.3.0", "1.4.1", "1.5.0"]),
)
def test_hashes_are_those_of_safe_eth(chain_id: int, safe: str, call: SafeCall, nonce: int, version: str) -> None:
    parts: dict[str, Any] = {
        "ethereum_client": None,  # no chain is asked when nonce, version and chain id are given
        "safe_address": safe,
        "to": call.to,
        "value": 0,
        "data": bytes.fromhex(call.data[2:]),
        "operation": call.operation,
        "safe_tx_gas": 0,
        "base_gas": 0,
        "gas_price": 0,
        "gas_token": ZERO_ADDRESS,
        "refund_receiver": ZERO_ADDRESS,
        "safe_nonce": nonce,
        "safe_version": version,
        "chain_id": chain_id,
    }
    theirs = SafeTx(**parts)

    assert safe_tx_hash(chain_id, safe, call, nonce) == "0x" + theirs.safe_tx_hash.hex()


def test_a_hash_alone_is_a_plain_call() -> None:
    # Selector of addComposeHash(bytes32), computed with another tool.
    assert approval_call(APP, COMPOSE_HASH, ()) == SafeCall(APP, "0xdfc77223" + "c0" * 32, CALL)
    assert inner_calls(COMPOSE_HASH, ()) == ("0xdfc77223" + "c0" * 32,)


@pytest.mark.parametrize("devices", [(DEVICE,), (DEVICE, "0x" + "df" * 32)])
def test_devices_come_in_one_batch_that_safe_eth_reads_back(devices: tuple[str, ...]) -> None:
    call = approval_call(APP, COMPOSE_HASH, devices)

    assert (call.to, call.operation) == (MULTI_SEND_CALL_ONLY, DELEGATECALL)
    inner = MultiSend.from_transaction_data(bytes.fromhex(call.data[2:]))
    assert [(tx.operation.value, tx.to, tx.value) for tx in inner] == [(CALL, APP, 0)] * (len(devices) + 1)
    assert tuple("0x" + tx.data.hex() for tx in inner) == inner_calls(COMPOSE_HASH, devices)


def test_a_batch_is_encoded_as_the_service_recorded_it() -> None:
    (recorded,) = [
        param.values[1]["data"] for param in accepted_proposals() if param.values[1]["to"] == MULTI_SEND_CALL_ONLY
    ]
    first, second = MultiSend.from_transaction_data(bytes.fromhex(recorded[2:]))
    hashes = ["0x" + tx.data[4:].hex() for tx in (first, second)]

    ours = approval_call(str(first.to), hashes[1], (hashes[0],))

    assert ours.data.replace(add_device(hashes[0]).hex(), add_compose_hash(hashes[0]).hex()) == recorded


def test_selectors_are_those_of_the_contract() -> None:
    assert add_compose_hash(COMPOSE_HASH)[:4].hex() == "dfc77223"
    assert add_device(DEVICE)[:4].hex() == "2a819728"


def test_a_rejection_is_an_empty_call_to_itself() -> None:
    assert rejection_call(SAFE) == SafeCall(SAFE, "0x", CALL)
