"""Safe signatures: who made them, and whether they hold."""

from dataclasses import dataclass

from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from sandbox.chain.safes import ZERO_ADDRESS
from sandbox.safe_service.chain_view import ChainView

SIZE = 65
RECOVERED = ("EOA", "ETH_SIGN")
"""Kinds whose owner follows from the signature itself."""
_CONTRACT, _APPROVED = 0, 1
_FIRST_ETH_SIGN = 31


@dataclass(frozen=True)
class SafeSignature:
    """One owner's part of a signatures blob.

    Attributes:
        owner: checksummed address; the zero address if nothing can be recovered.
        kind: EOA, ETH_SIGN, APPROVED_HASH or CONTRACT_SIGNATURE.
        raw: its 65 bytes as they were given.
        contract_data: what a contract is asked to check.
    """

    owner: str
    kind: str
    raw: bytes
    contract_data: bytes = b""

    @property
    def standalone(self) -> bytes:
        """Its bytes as a blob of its own; a contract's data follows the 65."""
        if self.kind != "CONTRACT_SIGNATURE":
            return self.raw
        offset, length = SIZE.to_bytes(32, "big"), len(self.contract_data).to_bytes(32, "big")
        return self.raw[:32] + offset + b"\x00" + length + self.contract_data

    def holds(self, chain: ChainView, safe: str, preimage: bytes) -> bool:
        """Whether the Safe would accept it for what hashes to the safeTxHash."""
        if self.kind == "APPROVED_HASH":
            return chain.approved(safe, self.owner, keccak(preimage))
        if self.kind == "CONTRACT_SIGNATURE":
            return chain.signed_by_contract(safe, self.owner, preimage, self.contract_data)
        return self.owner != ZERO_ADDRESS


def parse_signatures(blob: bytes, digest: bytes) -> list[SafeSignature]:
    """Split a blob into its signatures over a 32-byte digest; padding at the end is ignored."""
    found: list[SafeSignature] = []
    end = len(blob)
    position = 0
    while position + SIZE <= end:
        signature = _parse_one(blob, position, digest)
        if signature.kind == "CONTRACT_SIGNATURE":
            end = min(end, int.from_bytes(blob[position + 32 : position + 64], "big"))
        found.append(signature)
        position += SIZE
    return found


def _parse_one(blob: bytes, position: int, digest: bytes) -> SafeSignature:
    part = blob[position : position + SIZE]
    r, s, v = part[:32], part[32:64], part[64]
    if v == _CONTRACT:
        offset = int.from_bytes(s, "big")
        length = int.from_bytes(blob[offset : offset + 32], "big")
        data = blob[offset + 32 : offset + 32 + length]
        return SafeSignature(to_checksum_address(r[12:]), "CONTRACT_SIGNATURE", part, data)
    if v == _APPROVED:
        return SafeSignature(to_checksum_address(r[12:]), "APPROVED_HASH", part)
    if v >= _FIRST_ETH_SIGN:
        prefixed = keccak(b"\x19Ethereum Signed Message:\n32" + digest)
        return SafeSignature(_recover(prefixed, part, v - 31), "ETH_SIGN", part)
    return SafeSignature(_recover(digest, part, v - 27), "EOA", part)


def _recover(digest: bytes, part: bytes, recovery: int) -> str:
    r, s = int.from_bytes(part[:32], "big"), int.from_bytes(part[32:64], "big")
    try:
        signature = Signature(vrs=(recovery, r, s))
        return str(signature.recover_public_key_from_msg_hash(digest).to_checksum_address())
    except (BadSignature, ValidationError):
        return ZERO_ADDRESS


def approved_hash_signature(owner: str) -> str:
    """The signature that stands for an on-chain approval (v 1)."""
    return "0x" + (bytes(12) + bytes.fromhex(owner[2:]) + bytes(32) + b"\x01").hex()
