"""What a Safe's owners do: name a delegate, look at the queue, sign, execute. As Safe{Wallet} does it."""

import time
from dataclasses import dataclass
from typing import Any

import httpx
from eth_account.signers.local import LocalAccount

from sandbox.chain.local import LocalChain
from sandbox.chain.safes import SafeTx, execute, owner_sign, safe_tx_hash

TOTP_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class QueuedApproval:
    """A transaction of the Safe's queue. ``signatures`` by checksummed owner, as the service gives them."""

    safe: str
    tx: SafeTx
    safe_tx_hash: str
    origin: str
    signatures: dict[str, bytes]


class Wallet:
    """Owners before one Safe Transaction Service.

    Methods raise ``httpx.HTTPStatusError`` when the service refuses.
    """

    def __init__(self, service_url: str, chain: LocalChain) -> None:
        """Take the service's address (without ``/api``) and the chain."""
        self._client = httpx.Client(base_url=service_url, timeout=10)
        self._chain = chain

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def add_delegate(self, safe: str | None, delegate: str, owner: LocalAccount, label: str = "Countersign") -> None:
        """Let ``delegate`` propose in the owner's name: to one Safe, or to all of the owner's when it is ``None``."""
        totp = int(time.time()) // TOTP_SECONDS
        signed = owner.sign_typed_data(
            domain_data={
                "name": "Safe Transaction Service",
                "version": "1.0",
                "chainId": self._chain.chain_id,
            },
            message_types={
                "Delegate": [{"name": "delegateAddress", "type": "address"}, {"name": "totp", "type": "uint256"}]
            },
            message_data={"delegateAddress": delegate, "totp": totp},
        )
        body = {
            "safe": safe,
            "delegate": delegate,
            "delegator": owner.address,
            "label": label,
            "signature": "0x" + signed.signature.hex().removeprefix("0x"),
        }
        self._client.post("/api/v2/delegates/", json=body).raise_for_status()

    def pending(self, safe: str, nonce: int) -> list[QueuedApproval]:
        """What waits in the Safe's queue from ``nonce`` on, lowest nonce first."""
        answer = self._client.get(
            f"/api/v2/safes/{safe}/multisig-transactions/",
            params={"executed": "false", "nonce__gte": nonce},
        )
        answer.raise_for_status()
        return [_queued(safe, item) for item in reversed(answer.json()["results"])]

    def get(self, safe: str, tx_hash: str) -> QueuedApproval:
        """One transaction by its safeTxHash."""
        answer = self._client.get(f"/api/v2/multisig-transactions/{tx_hash}/")
        answer.raise_for_status()
        return _queued(safe, answer.json())

    def confirm(self, approval: QueuedApproval, owner: LocalAccount) -> None:
        """Sign it, after recomputing its hash from what it says it does."""
        recomputed = safe_tx_hash(self._chain.chain_id, approval.safe, approval.tx)
        if "0x" + recomputed.hex() != approval.safe_tx_hash:
            raise ValueError("the safeTxHash does not belong to this transaction: do not sign")
        signature = "0x" + owner_sign(recomputed, owner).hex()
        url = f"/api/v1/multisig-transactions/{approval.safe_tx_hash}/confirmations/"
        self._client.post(url, json={"signature": signature}).raise_for_status()

    def propose_rejection(self, approval: QueuedApproval, owner: LocalAccount) -> None:
        """Propose, signed by an owner, the empty transaction that uses up the same nonce."""
        tx = SafeTx(to=approval.safe, data=b"", nonce=approval.tx.nonce)
        tx_hash = safe_tx_hash(self._chain.chain_id, approval.safe, tx)
        body = {
            "to": tx.to,
            "value": "0",
            "data": None,
            "operation": tx.operation,
            "safeTxGas": "0",
            "baseGas": "0",
            "gasPrice": "0",
            "gasToken": tx.gas_token,
            "refundReceiver": tx.refund_receiver,
            "nonce": str(tx.nonce),
            "contractTransactionHash": "0x" + tx_hash.hex(),
            "sender": owner.address,
            "signature": "0x" + owner_sign(tx_hash, owner).hex(),
            "origin": "rejection",
        }
        url = f"/api/v2/safes/{approval.safe}/multisig-transactions/"
        self._client.post(url, json=body).raise_for_status()

    def execute(self, approval: QueuedApproval) -> str:
        """Execute it with the signatures that the service holds; the transaction hash once it is mined."""
        receipt = execute(self._chain, approval.safe, approval.tx, approval.signatures)
        return str(receipt["transactionHash"])


def _queued(safe: str, item: dict[str, Any]) -> QueuedApproval:
    tx = SafeTx(
        to=item["to"],
        data=bytes.fromhex((item["data"] or "0x")[2:]),
        operation=item["operation"],
        nonce=int(item["nonce"]),
    )
    signatures = {
        confirmation["owner"]: bytes.fromhex(confirmation["signature"][2:])
        for confirmation in item["confirmations"]
        if confirmation["signature"]
    }
    return QueuedApproval(safe, tx, item["safeTxHash"], item["origin"], signatures)
