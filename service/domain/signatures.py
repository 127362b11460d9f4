"""Who signed a Safe transaction, recovered from the signature itself. Pure.

The forms are those of the Safe contract's ``checkNSignatures``: v 27/28 signs the safeTxHash, v 31/32 signs it as an
``eth_sign`` message, v 0 is a contract's signature and v 1 a hash approved on chain.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError


class SignatureKind(StrEnum):
    """How an owner signed."""

    EIP712 = "eip712"
    ETH_SIGN = "eth_sign"
    APPROVED_HASH = "approved_hash"
    CONTRACT = "contract"


_ETH_SIGN_PREFIX: Final = b"\x19Ethereum Signed Message:\n32"
_KINDS: Final = {
    0: SignatureKind.CONTRACT,
    1: SignatureKind.APPROVED_HASH,
    27: SignatureKind.EIP712,
    28: SignatureKind.EIP712,
    31: SignatureKind.ETH_SIGN,
    32: SignatureKind.ETH_SIGN,
}
_LENGTH: Final = 65


@dataclass(frozen=True, slots=True)
class Tally:
    """What listed signatures and approved hashes come to. Addresses are checksummed.

    Attributes:
        signed: current owners whose signature was verified, in the order of the Safe, and how they signed.
        contracts: current owners under whom a contract's signature is listed: nothing here can verify it.
        wrong: owners, current or not, under whom a signature is listed that is not theirs.
    """

    signed: Mapping[str, SignatureKind]
    contracts: tuple[str, ...]
    wrong: tuple[str, ...]


def tally(
    safe_tx_hash: str, listed: Iterable[tuple[str, str]], owners: Sequence[str], approved: Collection[str]
) -> Tally:
    """Count signatures over a safeTxHash.

    Args:
        safe_tx_hash: ``0x``-prefixed bytes32, computed here.
        listed: (claimed owner, signature) as the Safe Transaction Service tells them; untrusted.
        owners: current owners.
        approved: owners who approved the hash on chain, read there. One that is only listed does not count: a node may
            be behind, so it is not wrong either.
    """
    found: dict[str, SignatureKind] = dict.fromkeys(approved, SignatureKind.APPROVED_HASH)
    contracts, wrong = set(), []
    for owner, signature in listed:
        kind = kind_of(signature)
        if kind is SignatureKind.CONTRACT:
            contracts.add(owner)
        elif kind in (SignatureKind.EIP712, SignatureKind.ETH_SIGN) and recover(safe_tx_hash, signature) == owner:
            found[owner] = kind
        elif kind is not SignatureKind.APPROVED_HASH and signature not in ("", "0x"):
            wrong.append(owner)
    return Tally(
        {owner: found[owner] for owner in owners if owner in found},
        tuple(owner for owner in owners if owner in contracts and owner not in found),
        tuple(dict.fromkeys(wrong)),
    )


def kind_of(signature: str) -> SignatureKind | None:
    """The kind that its v says, ``None`` for what has none of the Safe's forms."""
    raw = _bytes_of(signature)
    kind = None if len(raw) < _LENGTH else _KINDS.get(raw[_LENGTH - 1])
    # Only a contract's signature carries more behind its first 65 bytes.
    return kind if len(raw) == _LENGTH or kind is SignatureKind.CONTRACT else None


@lru_cache(maxsize=4096)  # each look meets the same signatures again
def recover(safe_tx_hash: str, signature: str) -> str | None:
    """Checksummed address whose key made an ECDSA signature over ``safe_tx_hash``.

    Args:
        safe_tx_hash: ``0x``-prefixed bytes32.
        signature: ``0x``-prefixed r, s, v as the Safe Transaction Service tells it; untrusted.

    Returns:
        ``None`` for everything that is no ECDSA signature: contract signatures, approved hashes, malformed text.
    """
    kind, raw = kind_of(signature), _bytes_of(signature)
    digest = bytes.fromhex(safe_tx_hash[2:])
    if kind is SignatureKind.ETH_SIGN:
        digest, v = keccak(_ETH_SIGN_PREFIX + digest), raw[-1] - 31
    elif kind is SignatureKind.EIP712:
        v = raw[-1] - 27
    else:
        return None
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big")
    try:
        return str(Signature(vrs=(v, r, s)).recover_public_key_from_msg_hash(digest).to_checksum_address())
    except (BadSignature, ValidationError):
        return None


def _bytes_of(signature: str) -> bytes:
    try:
        return bytes.fromhex(signature.removeprefix("0x"))
    except ValueError:
        return b""
