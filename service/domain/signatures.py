"""Who signed a Safe transaction, recovered from the signature itself. Pure.

The forms are those of the Safe contract's ``checkNSignatures``: v 27/28 signs the safeTxHash, v 31/32 signs it as an
``eth_sign`` message, v 0 is a contract's signature and v 1 a hash approved on chain.
"""

from typing import Final

from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

_ETH_SIGN_PREFIX: Final = b"\x19Ethereum Signed Message:\n32"
_ECDSA_V: Final = frozenset({27, 28})
_ETH_SIGN_V: Final = frozenset({31, 32})
_LENGTH: Final = 65


def recover(safe_tx_hash: str, signature: str) -> str | None:
    """Checksummed address whose key made an ECDSA signature over ``safe_tx_hash``.

    Args:
        safe_tx_hash: ``0x``-prefixed bytes32.
        signature: ``0x``-prefixed r, s, v as the Safe Transaction Service tells it; untrusted.

    Returns:
        ``None`` for everything that is no ECDSA signature: contract signatures, approved hashes, malformed text.
    """
    try:
        raw = bytes.fromhex(signature.removeprefix("0x"))
    except ValueError:
        return None
    if len(raw) != _LENGTH:
        return None
    digest, v = bytes.fromhex(safe_tx_hash[2:]), raw[-1]
    if v in _ETH_SIGN_V:
        digest, v = keccak(_ETH_SIGN_PREFIX + digest), v - 4
    elif v not in _ECDSA_V:
        return None
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big")
    try:
        return str(Signature(vrs=(v - 27, r, s)).recover_public_key_from_msg_hash(digest).to_checksum_address())
    except (BadSignature, ValidationError):
        return None
