from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak

from service.phala import errors
from service.phala.env_encryption import encrypt_env, verify_env_key
from tests.contract.phala.nodejs import run_node

pytestmark = pytest.mark.node

RECIPIENT = X25519PrivateKey.from_private_bytes(b"\x31" * 32)
PUBLIC = RECIPIENT.public_key().public_bytes_raw().hex()
APP = "09cef33ca9c6e4f2b1d5a7c3e8f0b2a4d6e8f1c3"
KMS = PrivateKey(b"\x42" * 32)
ENVIRONMENTS = [{}, {"A": "1"}, {"Z": "später", "A": 'quote " \\ \n', "😀": "\u2028 \x7f"}]


def decrypt(encrypted: str) -> bytes:
    raw = bytes.fromhex(encrypted)
    shared = RECIPIENT.exchange(X25519PublicKey.from_public_bytes(raw[:32]))
    return AESGCM(shared).decrypt(raw[32:44], raw[44:], None)


def test_both_encrypt_the_same_bytes_in_the_same_layout():
    calls = [
        {"env": [{"key": name, "value": value} for name, value in env.items()], "publicKey": PUBLIC}
        for env in ENVIRONMENTS
    ]
    theirs = run_node("sdk_encryption.mjs", {"encrypt": calls, "verify": []})["encrypted"]
    for env, encrypted in zip(ENVIRONMENTS, theirs, strict=True):
        ours = encrypt_env(env, PUBLIC)
        assert decrypt(ours) == decrypt(encrypted)
        assert len(ours) == len(encrypted)


def test_both_name_the_same_signer():
    message = b"dstack-env-encrypt-pubkey:" + bytes.fromhex(APP) + bytes.fromhex(PUBLIC)
    good = KMS.sign_msg_hash(keccak(message)).to_bytes().hex()
    signatures = [good, good[:-2] + ("00" if good.endswith("01") else "01"), "00" * 65, "cd" * 65]
    calls = [{"publicKey": PUBLIC, "signature": signature, "appId": f"0x{APP}"} for signature in signatures]
    signers = run_node("sdk_encryption.mjs", {"encrypt": [], "verify": calls})["signers"]
    assert signers[0] == "0x" + KMS.public_key.to_compressed_bytes().hex()
    for signature, signer in zip(signatures, signers, strict=True):
        if signer is None:
            with pytest.raises(errors.SignatureMismatch):
                verify_env_key(PUBLIC, signature, APP)
        else:
            assert "0x" + verify_env_key(PUBLIC, signature, APP) == signer
