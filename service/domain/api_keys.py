"""API keys as texts, and what a key may do. Pure.

A key is ``csk_``, 43 digits of base 62 for 256 random bits, and 6 more for a CRC-32 of all before them. The prefix lets
scanners find leaked keys, the checksum lets them, and us, tell a key from a typing error without asking the database.
"""

import hashlib
import re
import zlib
from enum import StrEnum
from typing import Final

PREFIX: Final = "csk_"
RANDOM_BYTES: Final = 32
HINT_LENGTH: Final = len(PREFIX) + 4
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_DIGITS: Final = 43
_CHECKSUM_DIGITS: Final = 6
_FORM: Final = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_SECRET_DIGITS + _CHECKSUM_DIGITS}}}")


class Scope(StrEnum):
    """What a key may do; each includes those before it."""

    READ = "read"
    SUBMIT = "submit"
    MANAGE = "manage"
    ADMIN = "admin"

    def includes(self, other: "Scope") -> bool:
        """Whether a key of this scope may do what ``other`` allows."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


MEANINGS: Final[dict[Scope, str]] = {
    Scope.READ: "read change requests, events and chains",
    Scope.SUBMIT: "submit, renew and cancel change requests",
    Scope.MANAGE: "manage the workspace's webhook endpoints, and its API keys up to this scope",
    Scope.ADMIN: "change the workspace itself: keys, Safes, policy, deadlines; manage keys of this scope too",
}


def mint(randomness: bytes) -> str:
    """The key of ``RANDOM_BYTES`` random bytes."""
    body = PREFIX + _base62(int.from_bytes(randomness, "big"), _SECRET_DIGITS)
    return body + _checksum(body)


def is_well_formed(text: str) -> bool:
    """Whether the text can be a key: right form, right checksum."""
    return bool(_FORM.fullmatch(text)) and _checksum(text[:-_CHECKSUM_DIGITS]) == text[-_CHECKSUM_DIGITS:]


def digest(key: str) -> bytes:
    """What is kept of a key. Plain SHA-256: nobody guesses 256 random bits, salted, slowly hashed or not."""
    return hashlib.sha256(key.encode()).digest()


def hint(key: str) -> str:
    """The beginning of a key, by which people tell keys apart."""
    return key[:HINT_LENGTH]


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_DIGITS)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
