"""A chain and a Safe Transaction Service that follows it, and proposals to file there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from eth_account.signers.local import LocalAccount

from sandbox.chain.local import LocalChain
from sandbox.chain.safes import SafeTx, owner_sign, safe_tx_hash
from sandbox.jsonrpc import JsonRpc
from sandbox.safe_service.control import Control
from sandbox.safe_service.server import running
from sandbox.wallet import Wallet


@dataclass
class SafeWorld:
    chain: LocalChain
    client: httpx.Client
    control: Control
    wallet: Wallet

    def hash_of(self, safe: str, tx: SafeTx) -> str:
        return "0x" + safe_tx_hash(self.chain.chain_id, safe, tx).hex()

    def sign(self, safe: str, tx: SafeTx, owner: LocalAccount) -> bytes:
        return owner_sign(safe_tx_hash(self.chain.chain_id, safe, tx), owner)

    def propose(self, safe: str, tx: SafeTx, sender: LocalAccount, signature: bytes | None = None) -> httpx.Response:
        """File it with the sender's own signature, unless another is given."""
        body = {
            "to": tx.to,
            "value": str(tx.value),
            "data": "0x" + tx.data.hex(),
            "operation": tx.operation,
            "safeTxGas": str(tx.safe_tx_gas),
            "baseGas": str(tx.base_gas),
            "gasPrice": str(tx.gas_price),
            "gasToken": tx.gas_token,
            "refundReceiver": tx.refund_receiver,
            "nonce": str(tx.nonce),
            "contractTransactionHash": self.hash_of(safe, tx),
            "sender": sender.address,
            "signature": "0x" + (self.sign(safe, tx, sender) if signature is None else signature).hex(),
            "origin": "tests",
        }
        return self.client.post(f"/api/v2/safes/{safe}/multisig-transactions/", json=body)

    def confirm(self, tx_hash: str, signature: bytes) -> httpx.Response:
        path = f"/api/v1/multisig-transactions/{tx_hash}/confirmations/"
        return self.client.post(path, json={"signature": "0x" + signature.hex()})

    def transaction(self, tx_hash: str) -> dict[str, Any]:
        answer = self.client.get(f"/api/v2/multisig-transactions/{tx_hash}/")
        assert answer.status_code == 200
        body: dict[str, Any] = answer.json()
        return body

    def listed(self, safe: str, **parameters: str) -> list[str]:
        answer = self.client.get(f"/api/v2/safes/{safe}/multisig-transactions/", params=parameters)
        assert answer.status_code == 200
        return [found["safeTxHash"] for found in answer.json()["results"]]


@contextmanager
def safe_world(rpc_url: str, database: Path) -> Iterator[SafeWorld]:
    with (
        JsonRpc(rpc_url) as rpc,
        running(database, rpc_url=rpc_url) as address,
        httpx.Client(base_url=address, timeout=10) as client,
        Control(address) as control,
    ):
        chain = LocalChain(rpc)
        wallet = Wallet(address, chain)
        yield SafeWorld(chain, client, control, wallet)
        wallet.close()
