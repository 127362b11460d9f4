from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from service.phala import errors
from service.phala.env_encryption import encrypt_env, verify_env_key
from tests.unit.phala.answering import client_of, json_answer

RECIPIENT = X25519PrivateKey.from_private_bytes(b"\x11" * 32)
PUBLIC = RECIPIENT.public_key().public_bytes_raw().hex()
APP = "09cef33ca9c6e4f2b1d5a7c3e8f0b2a4d6e8f1c3"
KMS = PrivateKey(b"\x22" * 32)
KMS_KEY = KMS.public_key.to_compressed_bytes().hex()


def decrypt(encrypted: str) -> bytes:
    """The official format, read by its description."""
    raw = bytes.fromhex(encrypted)
    shared = RECIPIENT.exchange(X25519PublicKey.from_public_bytes(raw[:32]))
    return AESGCM(shared).decrypt(raw[32:44], raw[44:], None)


@given(st.dictionaries(st.text(), st.text()))
def test_what_is_encrypted_can_be_read_by_the_recipient_only(env: dict[str, str]):
    plain = decrypt(encrypt_env(env, f"0x{PUBLIC}"))
    assert json.loads(plain) == {"env": [{"key": name, "value": value} for name, value in env.items()]}
    assert plain.decode() == json.dumps(json.loads(plain), ensure_ascii=False, separators=(",", ":"))


def test_every_encryption_is_another_and_takes_secrets():
    one, two = (encrypt_env({"TOKEN": SecretStr("s3cret")}, PUBLIC) for _ in range(2))
    assert one != two
    assert decrypt(one) == decrypt(two) == b'{"env":[{"key":"TOKEN","value":"s3cret"}]}'


@pytest.mark.parametrize("key", ["", "ab", "zz" * 32, PUBLIC + "00", "00" * 32])
def test_what_is_no_key_is_refused(key: str):
    with pytest.raises(errors.InvalidArgument):
        encrypt_env({"A": "b"}, key)


def sign(app_id: str = APP, key: str = PUBLIC) -> str:
    message = b"dstack-env-encrypt-pubkey:" + bytes.fromhex(app_id) + bytes.fromhex(key)
    return KMS.sign_msg_hash(keccak(message)).to_bytes().hex()


def test_the_published_example_verifies():
    """The example in the official packages' own documentation of the check."""
    signer = verify_env_key(
        "e33a1832c6562067ff8f844a61e51ad051f1180b66ec2551fb0251735f3ee90a",
        "8542c49081fbf4e03f62034f13fbf70630bdf256a53032e38465a27c36fd6bed"
        "7a5e7111652004aef37f7fd92fbfc1285212c4ae6a6154203a48f5e16cad2cef00",
        "00" * 20,
    )
    assert signer == "0217610d74cbd39b6143842c6d8bc310d79da1d82cc9d17f8876376221eda0c38f"


def test_a_key_is_vouched_for_by_its_kms():
    assert verify_env_key(PUBLIC, sign(), f"0x{APP}") == KMS_KEY
    assert verify_env_key(PUBLIC, f"0x{sign()}", APP, expected_signer=f"0x{KMS_KEY.upper()}") == KMS_KEY


@pytest.mark.parametrize(
    ("key", "signature", "app_id"),
    [
        (PUBLIC, sign("00" * 20), APP),
        ("ab" * 32, sign(), APP),
        (PUBLIC, "00" * 65, APP),
        (PUBLIC, "cd" * 65, APP),
        (PUBLIC, sign()[:-2] + "1b", APP),
    ],
)
def test_a_key_vouched_for_by_nobody_or_another_is_refused(key: str, signature: str, app_id: str):
    with pytest.raises(errors.SignatureMismatch):
        verify_env_key(key, signature, app_id, expected_signer=KMS_KEY)


def fetch(answer: httpx.Response, **options: Any) -> Any:
    with client_of(answer) as client:
        return client.get_app_env_encrypt_pub_key(kms="kms-base-prod5", app_id=APP, **options)


def test_a_fetched_key_is_checked():
    answer = json_answer(200, {"public_key": PUBLIC, "signature": sign(), "new_member": 1})
    assert fetch(answer).public_key == PUBLIC
    assert fetch(answer, expected_signer=KMS_KEY).public_key == PUBLIC
    with pytest.raises(errors.SignatureMismatch):
        fetch(answer, expected_signer="02" + "ab" * 32)
    with pytest.raises(errors.SignatureMismatch):
        fetch(json_answer(200, {"public_key": PUBLIC, "signature": "cd" * 65}))
    with pytest.raises(errors.BadResponse):
        fetch(json_answer(200, {"public_key": PUBLIC, "signature": "short"}))
    assert fetch(json_answer(200, {"public_key": PUBLIC, "signature": "short"}), verify=False).signature == "short"
