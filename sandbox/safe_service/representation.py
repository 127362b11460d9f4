"""Rows as the API shows them."""

import json
import sqlite3
from typing import Any, Literal

from sandbox.safe_service import clock
from sandbox.safe_service.database import Database
from sandbox.safe_service.decoding import decode_call

ApiVersion = Literal["v1", "v2"]
_CALL = 0


def transaction(database: Database, row: sqlite3.Row, version: ApiVersion) -> dict[str, Any]:
    """A multisig transaction with its confirmations."""
    confirmations = confirmation_list(database, row["safe_tx_hash"])
    data = row["data"]
    decodable = data is not None and row["operation"] == _CALL  # a delegatecall's target is not trusted
    shown = {
        "safe": row["safe"],
        "to": row["to"],
        "value": row["value"],
        "data": data,
        "operation": row["operation"],
        "gasToken": row["gas_token"],
        "safeTxGas": row["safe_tx_gas"],
        "baseGas": row["base_gas"],
        "gasPrice": row["gas_price"],
        "refundReceiver": row["refund_receiver"],
        "nonce": str(row["nonce"]),
        "executionDate": clock.show(row["executed_at"]),
        "submissionDate": clock.show(row["created"]),
        "modified": clock.show(row["modified"]),
        "blockNumber": row["block_number"],
        "transactionHash": row["transaction_hash"],
        "safeTxHash": row["safe_tx_hash"],
        "proposer": row["proposer"],
        "proposedByDelegate": row["proposed_by_delegate"],
        "executor": row["executor"],
        "isExecuted": row["executed_at"] is not None,
        "isSuccessful": None if row["successful"] is None else bool(row["successful"]),
        "ethGasPrice": row["eth_gas_price"],
        "maxFeePerGas": row["max_fee_per_gas"],
        "maxPriorityFeePerGas": row["max_priority_fee_per_gas"],
        "gasUsed": row["gas_used"],
        "fee": None if row["gas_used"] is None else str(row["gas_used"] * int(row["eth_gas_price"])),
        "payment": row["payment"],
        "origin": row["origin"],
        "dataDecoded": decode_call(bytes.fromhex(data[2:])) if decodable else None,
        # Before the Safe is indexed its threshold is not known.
        "confirmationsRequired": len(confirmations) if row["threshold"] is None else row["threshold"],
        "confirmations": confirmations,
        "trusted": bool(row["trusted"]),
        "signatures": row["signatures"],
    }
    if version == "v1":
        shown.update({name: int(shown[name]) for name in ("nonce", "safeTxGas", "baseGas")})
    return shown


def confirmation_list(database: Database, safe_tx_hash: str) -> list[dict[str, Any]]:
    """A transaction's confirmations, oldest first."""
    rows = database.all("SELECT * FROM confirmations WHERE safe_tx_hash = ? ORDER BY created, id", [safe_tx_hash])
    return [
        {
            "owner": row["owner"],
            "submissionDate": clock.show(row["created"]),
            "transactionHash": row["transaction_hash"],
            "signature": row["signature"],
            "signatureType": row["signature_type"],
        }
        for row in rows
    ]


def delegate(row: sqlite3.Row) -> dict[str, Any]:
    """A delegate as the list shows it."""
    return {
        "safe": row["safe"],
        "delegate": row["delegate"],
        "delegator": row["delegator"],
        "label": row["label"],
        "expiryDate": clock.show(row["expires"]),
    }


def stored_origin(origin: str | None) -> str:
    """Origins are kept as JSON where they are JSON, and read back as text."""
    if not origin:
        return "{}"
    try:
        content = json.loads(origin)
    except ValueError:
        return origin
    return content if isinstance(content, str) else json.dumps(content)
