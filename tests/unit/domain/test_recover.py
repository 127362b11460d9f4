import json
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from hypothesis import given
from hypothesis import strategies as st

from service.domain.signatures import recover
from tests.support.builders import COMPOSE_HASH, OTHER_HASH
from tests.support.fakes import FakeSigner

RECORDED = Path(__file__).parents[2] / "vectors" / "safe" / "exchanges.jsonl"


def accepted_signatures() -> list[Any]:
    """Proposals that the service took with a signature of their sender."""
    found = []
    for line in RECORDED.read_text().splitlines():
        exchange = json.loads(line)
        body = exchange["request"]["body"]
        if exchange["response"]["status"] == 201 and isinstance(body, dict) and body.get("contractTransactionHash"):
            signature = body.get("signature") or ""
            if len(signature) == 132:
                found.append(pytest.param(body, id=exchange["id"]))
    return found


@pytest.mark.parametrize("body", accepted_signatures())
def test_recorded_signatures_recover_to_their_sender(body: dict[str, Any]) -> None:
    assert recover(body["contractTransactionHash"], body["signature"]) == body["sender"]


def test_the_recording_holds_both_forms() -> None:
    endings = {param.values[0]["signature"][-2:] for param in accepted_signatures()}
    assert endings & {"1b", "1c"}
    assert endings & {"1f", "20"}


def test_our_own_signature_recovers() -> None:
    signer = FakeSigner(7)
    assert recover(COMPOSE_HASH, signer.sign(COMPOSE_HASH)) == signer.address


def test_an_eth_sign_message_recovers() -> None:
    account = Account.from_key(b"\x07" * 32)
    signed = account.sign_message(encode_defunct(primitive=bytes.fromhex(COMPOSE_HASH[2:])))
    raw = bytearray(signed.signature)
    raw[64] += 4

    assert recover(COMPOSE_HASH, "0x" + raw.hex()) == account.address


def test_over_another_hash_somebody_else_is_recovered() -> None:
    signer = FakeSigner(7)
    assert recover(OTHER_HASH, signer.sign(COMPOSE_HASH)) != signer.address


@pytest.mark.parametrize("v", [0, 1, 2, 26, 29, 30, 33, 255])
def test_other_kinds_of_signature_are_nobodys(v: int) -> None:
    signature = FakeSigner(7).sign(COMPOSE_HASH)
    assert recover(COMPOSE_HASH, f"{signature[:-2]}{v:02x}") is None


@pytest.mark.parametrize(
    "signature",
    ["", "0x", "0xzz", "0x" + "11" * 64, "0x" + "11" * 66, "0x" + "00" * 64 + "1b", "0x" + "ff" * 64 + "1b"],
)
def test_malformed_signatures_are_nobodys(signature: str) -> None:
    assert recover(COMPOSE_HASH, signature) is None


@given(st.text(max_size=140))
def test_no_text_breaks_it(signature: str) -> None:
    assert recover(COMPOSE_HASH, signature) is None


@given(st.binary(min_size=65, max_size=65))
def test_no_bytes_break_it(raw: bytes) -> None:
    recovered = recover(COMPOSE_HASH, "0x" + raw.hex())
    assert recovered is None or (len(recovered) == 42 and raw[64] in (27, 28, 31, 32))
