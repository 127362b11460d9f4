"""Encrypting environment variables for an app, in the format of the official tools.

Plaintext: the compact JSON ``{"env":[{"key":...,"value":...},...]}``. Result, in hex without 0x: ephemeral X25519
public key (32 bytes), IV (12), AES-256-GCM ciphertext and tag. The AES key is the raw shared secret; nothing else is
authenticated.
"""

from __future__ import annotations

import hmac
import os
import re
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from service.phala import javascript_json
from service.phala.errors import InvalidArgument, SignatureMismatch
from service.phala.identifiers import normalize_app_id

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 65
_IV_BYTES: Final = 12
_SIGNED_PREFIX: Final = b"dstack-env-encrypt-pubkey:"


def encrypt_env(env: Mapping[str, str | SecretStr], public_key: str) -> str:
    """Encrypt environment variables.

    Args:
        env: names and values, in the order in which the CVM is to see them.
        public_key: the app's X25519 key, 64 hex digits with or without 0x. Take it from
            `PhalaCloud.get_app_env_encrypt_pub_key` and check who signed it (`verify_env_key`).

    Returns:
        Hex without 0x, as ``encrypted_env`` of the update functions. Every call gives another text.

    Raises:
        InvalidArgument: ``public_key`` is no usable X25519 key.
    """
    recipient = X25519PublicKey.from_public_bytes(_hex(public_key, _KEY_BYTES, "public_key"))
    pairs = [
        {"key": name, "value": value.get_secret_value() if isinstance(value, SecretStr) else value}
        for name, value in env.items()
    ]
    ephemeral = X25519PrivateKey.generate()
    try:
        shared = ephemeral.exchange(recipient)
    except ValueError:
        raise InvalidArgument("public_key is a point of small order: nobody's key") from None
    iv = os.urandom(_IV_BYTES)
    sealed = AESGCM(shared).encrypt(iv, javascript_json.stringify({"env": pairs}).encode(), None)
    return (ephemeral.public_key().public_bytes_raw() + iv + sealed).hex()


def verify_env_key(public_key: str, signature: str, app_id: str, *, expected_signer: str | None = None) -> str:
    """Who vouches for an app's encryption key.

    The signature is ECDSA over keccak256(``dstack-env-encrypt-pubkey:`` + app id + key). Any signature recovers to
    *some* key, so the result proves nothing until it is compared with the key that the KMS contract publishes.

    Args:
        public_key: 64 hex digits, with or without 0x.
        signature: 130 hex digits: r, s, v; v is 0 or 1.
        app_id: 40 hex digits, with or without 0x.
        expected_signer: the KMS's secp256k1 key, compressed (66 hex digits), with or without 0x.

    Returns:
        The signer's compressed key, 66 lower-case hex digits without 0x.

    Raises:
        InvalidArgument: an argument of the wrong form.
        SignatureMismatch: the signature recovers to no key, or to another one than expected.
    """
    # slow to import, and needed here only
    from eth_keys.datatypes import Signature  # noqa: PLC0415 - see above
    from eth_keys.exceptions import BadSignature  # noqa: PLC0415 - see above
    from eth_utils.crypto import keccak  # noqa: PLC0415 - see above
    from eth_utils.exceptions import ValidationError  # noqa: PLC0415 - see above

    key = _hex(public_key, _KEY_BYTES, "public_key")
    message = _SIGNED_PREFIX + bytes.fromhex(normalize_app_id(app_id)) + key
    try:
        recovered = Signature(_hex(signature, _SIGNATURE_BYTES, "signature")).recover_public_key_from_msg_hash(
            keccak(message)
        )
    except (BadSignature, ValidationError):
        raise SignatureMismatch("the signature recovers to no key") from None
    signer = recovered.to_compressed_bytes()
    if expected_signer is not None and not hmac.compare_digest(signer, _hex(expected_signer, 33, "expected_signer")):
        raise SignatureMismatch("the encryption key is signed by another key than that of the expected KMS")
    return signer.hex()


def _hex(text: str, size: int, what: str) -> bytes:
    bare = text[2:] if text[:2] in ("0x", "0X") else text
    if len(bare) != 2 * size or not re.fullmatch(r"[0-9a-fA-F]+", bare):
        raise InvalidArgument(f"{what} must have {2 * size} hex digits, with or without 0x")
    return bytes.fromhex(bare)
