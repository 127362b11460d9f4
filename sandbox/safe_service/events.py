"""Logs of Safes and what is in them. Which parameters are indexed differs by version; the topics do not."""

from dataclasses import dataclass
from typing import Any, Self

from eth_abi.abi import decode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak


def _topic(signature: str) -> str:
    return "0x" + keccak(text=signature).hex()


SAFE_SETUP = _topic("SafeSetup(address,address[],uint256,address,address)")
SAFE_TX = _topic(
    "SafeMultiSigTransaction(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes,bytes)"
)
EXECUTION_SUCCESS = _topic("ExecutionSuccess(bytes32,uint256)")
EXECUTION_FAILURE = _topic("ExecutionFailure(bytes32,uint256)")
EXECUTION = (EXECUTION_SUCCESS, EXECUTION_FAILURE)
APPROVE_HASH = _topic("ApproveHash(bytes32,address)")
OWNER_CHANGES = tuple(map(_topic, ("AddedOwner(address)", "RemovedOwner(address)", "ChangedThreshold(uint256)")))

_SAFE_TX_FIELDS = [
    "address", "uint256", "bytes", "uint8", "uint256", "uint256", "uint256", "address", "address", "bytes", "bytes",
]  # fmt: skip


@dataclass(frozen=True)
class SafeTxEvent:
    """What an L2 Safe says of the transaction it is about to execute."""

    to: str
    value: int
    data: bytes
    operation: int
    safe_tx_gas: int
    base_gas: int
    gas_price: int
    gas_token: str
    refund_receiver: str
    signatures: bytes
    nonce: int
    threshold: int


@dataclass(frozen=True)
class Log:
    """One log of a contract."""

    address: str
    topic: str
    topics: tuple[str, ...]
    data: bytes
    block_number: int
    block_hash: str
    transaction_hash: str
    index: int

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> Self:
        """Read the node's JSON."""
        return cls(
            address=to_checksum_address(raw["address"]),
            topic=raw["topics"][0],
            topics=tuple(raw["topics"]),
            data=bytes.fromhex(raw["data"][2:]),
            block_number=int(raw["blockNumber"], 16),
            block_hash=raw["blockHash"],
            transaction_hash=raw["transactionHash"],
            index=int(raw["logIndex"], 16),
        )

    def setup(self) -> tuple[list[str], int]:
        """Owners and threshold of a SafeSetup."""
        owners, threshold, _initializer, _handler = decode(["address[]", "uint256", "address", "address"], self.data)
        return [to_checksum_address(owner) for owner in owners], threshold

    def execution(self) -> tuple[str, int]:
        """SafeTxHash and payment; Safe 1.4.1 and later index the hash, 1.3.0 does not."""
        words = b"".join(bytes.fromhex(topic[2:]) for topic in self.topics[1:]) + self.data
        return "0x" + words[:32].hex(), int.from_bytes(words[32:64], "big")

    def approval(self) -> tuple[str, str]:
        """SafeTxHash and owner of an ApproveHash."""
        return self.topics[1], to_checksum_address(bytes.fromhex(self.topics[2][2:])[12:])

    def safe_tx(self) -> SafeTxEvent:
        """The fields of a SafeMultiSigTransaction."""
        *fields, additional = decode(_SAFE_TX_FIELDS, self.data)
        nonce, _sender, threshold = decode(["uint256", "address", "uint256"], additional)
        to, value, data, operation, safe_tx_gas, base_gas, gas_price, token, receiver, signatures = fields
        return SafeTxEvent(
            to_checksum_address(to), value, data, operation, safe_tx_gas, base_gas, gas_price,
            to_checksum_address(token), to_checksum_address(receiver), signatures, nonce, threshold,
        )  # fmt: skip
