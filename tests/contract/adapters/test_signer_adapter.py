import logging

import pytest
from eth_keys.datatypes import PrivateKey, Signature
from pydantic import SecretStr

from sandbox.chain.accounts import DELEGATE
from service.adapters.signer import LocalSigner

KEY = "0x" + "5e" * 32
DIGEST = "0x" + "9f" * 32


def test_the_signature_recovers_over_the_bare_digest():
    signer = LocalSigner(SecretStr(KEY))
    signature = bytes.fromhex(signer.sign(DIGEST)[2:])
    assert len(signature) == 65
    assert signature[64] in (27, 28)
    raw = Signature(signature[:64] + bytes([signature[64] - 27]))
    public = raw.recover_public_key_from_msg_hash(bytes.fromhex(DIGEST[2:]))
    assert public.to_checksum_address() == signer.address
    assert signer.sign(DIGEST) == signer.sign(DIGEST)


@pytest.mark.parametrize("key", [KEY, KEY[2:], KEY.upper().replace("X", "x")])
def test_a_key_with_and_without_prefix(key: str):
    expected = PrivateKey(bytes.fromhex(KEY[2:])).public_key.to_checksum_address()
    assert LocalSigner(SecretStr(key)).address == expected


def test_the_delegate_of_the_sandbox():
    assert LocalSigner(SecretStr(DELEGATE.key.hex())).address == DELEGATE.address


@pytest.mark.parametrize(
    "key", ["", "0x", "5e" * 31, "5e" * 33, "zz" * 32, "0x" + "00" * 32, "0x" + "ff" * 32, "s3cret"]
)
def test_a_bad_key_is_refused_without_quoting_it(key: str):
    with pytest.raises(ValueError, match="no 32-byte hex key") as bad:
        LocalSigner(SecretStr(key))
    assert bad.value.__cause__ is None
    assert bad.value.__suppress_context__
    if key.strip("0x"):
        assert key.strip("0x") not in str(bad.value)


@pytest.mark.parametrize("digest", ["", "0x12", "9f" * 33, "0x" + "zz" * 32])
def test_only_a_32_byte_digest_is_signed(digest: str):
    with pytest.raises(ValueError, match="64 hex digits"):
        LocalSigner(SecretStr(KEY)).sign(digest)


def test_the_key_shows_nowhere(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG):
        signer = LocalSigner(SecretStr(KEY))
        signer.sign(DIGEST)
    secret = "5e5e5e"
    assert secret not in repr(signer)
    assert secret not in str(signer)
    assert secret not in repr(vars(signer))
    assert secret not in caplog.text
