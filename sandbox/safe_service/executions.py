"""Executions and on-chain approvals, from logs to rows."""

from dataclasses import dataclass, field
from typing import Any

from eth_utils.address import to_checksum_address

from sandbox.jsonrpc import JsonRpc
from sandbox.safe_service.confirmations import store
from sandbox.safe_service.database import Database, Value
from sandbox.safe_service.events import EXECUTION, EXECUTION_SUCCESS, SAFE_TX, Log, SafeTxEvent
from sandbox.safe_service.service import Service
from sandbox.safe_service.signatures import approved_hash_signature, parse_signatures

_MICROS = 1_000_000
_EXECUTION_COLUMNS = (
    "executed_at", "block_number", "transaction_hash", "executor", "successful", "eth_gas_price", "max_fee_per_gas",
    "max_priority_fee_per_gas", "gas_used", "payment", "signatures",
)  # fmt: skip
# Back to pending: every execution field is null again, confirmations are kept.
UNDO = f"UPDATE transactions SET {', '.join(f'{name} = NULL' for name in _EXECUTION_COLUMNS)} WHERE block_number > ?"  # noqa: S608 - own names


@dataclass
class Gathered:
    """What the node said about a range of logs, read before anything is written.

    Attributes:
        block_micros: block number -> its time in microseconds since 1970.
        transactions: hash -> transaction and receipt, for those that executed a Safe transaction.
        details: (transaction hash, log index) of an execution -> what the Safe said of it just before.
    """

    block_micros: dict[int, int] = field(default_factory=dict)
    transactions: dict[str, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)
    details: dict[tuple[str, int], SafeTxEvent] = field(default_factory=dict)


def gather(rpc: JsonRpc, logs: list[Log]) -> Gathered:
    """Read blocks, transactions and receipts of the logs."""
    found = Gathered()
    announced: dict[tuple[str, str], list[SafeTxEvent]] = {}
    for log in logs:
        if log.block_number not in found.block_micros:
            block = rpc("eth_getBlockByNumber", [hex(log.block_number), False])
            found.block_micros[log.block_number] = int(block["timestamp"], 16) * _MICROS
        key = (log.transaction_hash, log.address)
        if log.topic == SAFE_TX:
            announced.setdefault(key, []).append(log.safe_tx())
        elif log.topic in EXECUTION:
            if announced.get(key):
                found.details[log.transaction_hash, log.index] = announced[key].pop()
            if log.transaction_hash not in found.transactions:
                found.transactions[log.transaction_hash] = (
                    rpc("eth_getTransactionByHash", [log.transaction_hash]),
                    rpc("eth_getTransactionReceipt", [log.transaction_hash]),
                )
    return found


def apply_approval(database: Database, log: Log, gathered: Gathered) -> None:
    """Keep an approveHash as a confirmation, also of a hash nobody has proposed yet."""
    tx_hash, owner = log.approval()
    at = gathered.block_micros[log.block_number]
    new = database.insert(
        "confirmations",
        {
            "safe_tx_hash": tx_hash,
            "owner": owner,
            "created": at,
            "signature": approved_hash_signature(owner),
            "signature_type": "APPROVED_HASH",
            "transaction_hash": log.transaction_hash,
            "block_number": log.block_number,
        },
        or_ignore=True,
    )
    if new:
        database.run("UPDATE transactions SET modified = ? WHERE safe_tx_hash = ?", [at, tx_hash])


def apply_execution(service: Service, log: Log, gathered: Gathered) -> None:
    """Mark a Safe transaction executed; one nobody proposed appears with it."""
    database = service.database
    tx_hash, payment = log.execution()
    at = gathered.block_micros[log.block_number]
    detail = gathered.details.get((log.transaction_hash, log.index))
    if detail is not None:
        database.insert("transactions", _unproposed(log.address, tx_hash, detail, at), or_ignore=True)
    signatures = parse_signatures(detail.signatures, bytes.fromhex(tx_hash[2:])) if detail else []
    outer, receipt = gathered.transactions[log.transaction_hash]
    fields: dict[str, Value] = {
        "executed_at": at,
        "block_number": log.block_number,
        "transaction_hash": log.transaction_hash,
        "executor": to_checksum_address(outer["from"]),
        "successful": int(log.topic == EXECUTION_SUCCESS),
        "eth_gas_price": str(int(outer["gasPrice"], 16)),
        "max_fee_per_gas": _decimal(outer.get("maxFeePerGas")),
        "max_priority_fee_per_gas": _decimal(outer.get("maxPriorityFeePerGas")),
        "gas_used": int(receipt["gasUsed"], 16),
        "payment": str(payment),
        "signatures": "0x" + detail.signatures.hex() if detail else None,
    }
    assignments = ", ".join(f"{name} = ?" for name in fields)
    database.run(
        f"UPDATE transactions SET {assignments}, trusted = 1, modified = max(modified, ?) WHERE safe_tx_hash = ?",  # noqa: S608 - own names
        [*fields.values(), service.micros(), tx_hash],
    )
    store(database, tx_hash, signatures, at)


def _unproposed(safe: str, tx_hash: str, detail: SafeTxEvent, at: int) -> dict[str, Value]:
    return {
        "safe_tx_hash": tx_hash,
        "safe": safe,
        "to": detail.to,
        "value": str(detail.value),
        "data": "0x" + detail.data.hex() if detail.data else None,
        "operation": detail.operation,
        "safe_tx_gas": str(detail.safe_tx_gas),
        "base_gas": str(detail.base_gas),
        "gas_price": str(detail.gas_price),
        "gas_token": detail.gas_token,
        "refund_receiver": detail.refund_receiver,
        "nonce": detail.nonce,
        "created": at,
        "modified": at,
        "origin": "{}",
        "trusted": 1,
        "threshold": detail.threshold,
    }


def _decimal(quantity: str | None) -> str | None:
    return None if quantity is None else str(int(quantity, 16))
