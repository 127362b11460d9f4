"""Why a call reverted, in words."""

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.crypto import keccak

from service.adapters.http import one_line
from service.domain.hexes import address

_ERROR = bytes(keccak(text="Error(string)")[:4])
_PANIC = bytes(keccak(text="Panic(uint256)")[:4])
_PANICS = {
    0x01: "an assertion failed",
    0x11: "arithmetic overflow",
    0x12: "division by zero",
    0x21: "no such enum value",
    0x22: "broken storage bytes",
    0x31: "pop of an empty array",
    0x32: "array index out of bounds",
    0x41: "out of memory",
    0x51: "call of an uninitialised function",
}
"""Solidity's ``Panic`` codes (Solidity documentation, "Panic via assert and Error via require")."""

_CUSTOM = {
    bytes(keccak(text=signature)[:4]): (signature, words)
    for signature, words in {
        "OwnableUnauthorizedAccount(address)": "the caller {} is not the owner of the app contract",
        "OwnableInvalidOwner(address)": "{} cannot be the owner",
        "InvalidInitialization()": "the contract is already initialised",
        "NotInitializing()": "the contract is not being initialised",
        "UUPSUnauthorizedCallContext()": "an upgrade was called outside the proxy",
        "ERC1967InvalidImplementation(address)": "{} is no implementation",
        "ERC1967NonPayable()": "the contract takes no value",
        "AddressEmptyCode(address)": "there is no contract at {}",
        "FailedCall()": "an inner call failed",
        "FailedInnerCall()": "an inner call failed",
    }.items()
}
"""Custom errors of OpenZeppelin 5 that a DstackApp can answer, by selector."""


def revert_reason(data: str | None, message: str) -> str:
    """Words for a revert, on one line of at most 300 characters.

    Args:
        data: revert data as ``0x`` hex, if the node gave any.
        message: the node's own words, used when there is no data.
    """
    raw = bytes.fromhex(data[2:]) if data else b""
    if not raw:
        words = message.partition("execution reverted")[2].lstrip(": ") if data is None else ""
        return one_line(words) or "reverted without a reason"
    try:
        return one_line(_in_words(raw[:4], raw[4:]))
    except (DecodingError, ValueError, OverflowError):
        return f"reverted with data that no known error explains, 0x{raw[:4].hex()}"


def _in_words(selector: bytes, arguments: bytes) -> str:
    if selector == _ERROR:
        (raw,) = decode(["bytes"], arguments)  # a string that is no UTF-8 is told as far as it is readable
        return f"reverted: {raw.decode(errors='replace')}"
    if selector == _PANIC:
        (code,) = decode(["uint256"], arguments)
        return f"panic 0x{code:02x}: {_PANICS.get(code, 'unknown')}"
    if selector not in _CUSTOM:
        return f"reverted with the unknown error 0x{selector.hex()}"
    signature, words = _CUSTOM[selector]
    name = signature.partition("(")[0]
    values = decode(["address"], arguments) if signature.endswith("(address)") else ()
    return f"{name}: {words.format(*map(address, values))}"
