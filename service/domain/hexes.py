"""Normal forms of hex values. Pure."""

import re

from eth_utils.address import to_checksum_address

_HEX = re.compile(r"(?:0x)?([0-9a-fA-F]*)\Z")
ZERO_ADDRESS = "0x" + "0" * 40


def bytes32(value: str) -> str:
    """``0x``-prefixed lower-case 64 digits of a 32-byte hex value given with or without ``0x``.

    Raises:
        ValueError: anything else; the message names the number of digits, never the value.
    """
    return "0x" + _digits(value, 64)


def address(value: str) -> str:
    """EIP-55 checksummed address of 20 hex bytes given with or without ``0x``; a given checksum is not verified.

    Raises:
        ValueError: not 40 hex digits.
    """
    return str(to_checksum_address("0x" + _digits(value, 40)))


def _digits(value: str, count: int) -> str:
    match = _HEX.match(value)
    if match is None:
        raise ValueError(f"expected {count} hex digits, optionally after 0x, but it has other characters")
    digits = match.group(1)
    if len(digits) != count:
        raise ValueError(f"expected {count} hex digits, optionally after 0x, but it has {len(digits)}")
    return digits.lower()
