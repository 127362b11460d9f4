"""Encryption of secret columns: AES-256-GCM, the key's id in front of the ciphertext.

Layout: ``key id (UTF-8) || 0x00 || nonce (12) || ciphertext and tag``. The purpose and row id are authenticated, so a
sealed value copied to another row or column does not open.
"""

import hashlib
import hmac
import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

_NONCE_BYTES = 12
_KEY_BYTES = 32


class SealingError(Exception):
    """A sealed value cannot be opened: unknown key id, wrong key, or a tampered value."""


class Sealer:
    """Seals with the first key, opens with any."""

    def __init__(self, keys: Mapping[str, bytes], fingerprint_key: bytes) -> None:
        """Take the keys.

        Args:
            keys: key id to 32 bytes; the first seals.
            fingerprint_key: 32 bytes, key of the HMAC by which a secret is recognised without being kept.

        Raises:
            ValueError: no key, a key of another length, or a key id that is empty or holds a NUL.
        """
        if not keys:
            raise ValueError("at least one encryption key is needed")
        if any(not key_id or "\0" in key_id for key_id in keys):
            raise ValueError("the id of an encryption key is empty or holds a NUL")
        if any(len(key) != _KEY_BYTES for key in (*keys.values(), fingerprint_key)):
            raise ValueError(f"every key must have {_KEY_BYTES} bytes")
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._active = next(iter(keys))
        self._fingerprint_key = fingerprint_key

    @property
    def active_prefix(self) -> bytes:
        """What every value starts with that was sealed by the first key."""
        return self._active.encode() + b"\0"

    def seal(self, secret: SecretStr, *, purpose: str, row_id: str) -> bytes:
        """Ciphertext of a secret for one column (``purpose``) of one row."""
        nonce = os.urandom(_NONCE_BYTES)
        ciphertext = self._ciphers[self._active].encrypt(
            nonce, secret.get_secret_value().encode(), _context(purpose, row_id)
        )
        return self.active_prefix + nonce + ciphertext

    def open(self, sealed: bytes, *, purpose: str, row_id: str) -> SecretStr:
        """The secret again.

        Raises:
            SealingError: see there; never says anything about the content.
        """
        key_id, separator, rest = sealed.partition(b"\0")
        cipher = self._ciphers.get(key_id.decode(errors="replace"))
        if cipher is None or not separator:
            raise SealingError(f"{purpose} of {row_id} names an unknown key: check COUNTERSIGN_ENCRYPTION_KEYS")
        try:
            plain = cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], _context(purpose, row_id))
        except (InvalidTag, ValueError) as error:
            raise SealingError(f"{purpose} of {row_id} does not open with the key it names") from error
        return SecretStr(plain.decode())

    def fingerprint(self, secret: SecretStr) -> bytes:
        """HMAC-SHA256 by which the same secret is recognised later."""
        return hmac.new(self._fingerprint_key, secret.get_secret_value().encode(), hashlib.sha256).digest()


def _context(purpose: str, row_id: str) -> bytes:
    return f"{purpose}\0{row_id}".encode()
