"""Owners' confirmations of a proposal."""

import sqlite3
from typing import Any

from sandbox.chain.safes import ZERO_ADDRESS, SafeTx, safe_tx_preimage
from sandbox.safe_service.chain_view import NoSafeError
from sandbox.safe_service.database import Database, Value
from sandbox.safe_service.errors import ApiError
from sandbox.safe_service.forms import Form
from sandbox.safe_service.service import Service
from sandbox.safe_service.signatures import SIZE, SafeSignature, parse_signatures


def confirm(service: Service, tx_hash: str, body: dict[str, Any]) -> None:
    """Add the confirmations in the body's `signature`; one that is there already stays as it is.

    Raises:
        ApiError: 404 unknown, 400 with the reason.
    """
    form = Form(body)
    blob = form.hexadecimal("signature", minimum=SIZE) or b""
    form.finish(400)
    row = service.database.one("SELECT * FROM transactions WHERE safe_tx_hash = ?", [tx_hash])
    if row is None:
        raise ApiError(404, {"detail": f"Multisig transaction with safe-tx-hash={tx_hash} was not found"})
    if row["executed_at"] is not None:
        raise _refused(f"Transaction with safe-tx-hash={tx_hash} was already executed")
    signatures = parse_signatures(blob, bytes.fromhex(tx_hash[2:]))
    _check(service, row, signatures)
    with service.database.transaction():
        store(service.database, tx_hash, signatures, service.micros())
        service.database.run("UPDATE transactions SET trusted = 1 WHERE safe_tx_hash = ?", [tx_hash])


def store(
    database: Database, tx_hash: str, signatures: list[SafeSignature], at: int, block_number: int | None = None
) -> int:
    """Keep signatures as confirmations, one an owner, in the caller's database transaction.

    Args:
        database: where.
        tx_hash: the safeTxHash signed.
        signatures: whose.
        at: their time, in microseconds since 1970; it becomes the Safe transaction's `modified`.
        block_number: of the block they were seen in, if they come from the chain.

    Returns:
        How many were new.
    """
    new = 0
    for signature in signatures:
        fields: dict[str, Value] = {
            "safe_tx_hash": tx_hash,
            "owner": signature.owner,
            "created": at,
            "signature": "0x" + signature.standalone.hex(),
            "signature_type": signature.kind,
            "block_number": block_number,
        }
        new += database.insert("confirmations", fields, or_ignore=True)
    if new:
        database.run("UPDATE transactions SET modified = ? WHERE safe_tx_hash = ?", [at, tx_hash])
    return new


def _check(service: Service, row: sqlite3.Row, signatures: list[SafeSignature]) -> None:
    preimage = safe_tx_preimage(service.chain.chain_id, row["safe"], _safe_tx(row))
    try:
        owners = service.chain.owners(row["safe"])
    except NoSafeError:
        owners = []
    signers: list[str] = []
    for signature in signatures:
        owner = signature.owner
        if owner not in owners:
            raise _refused(f"Signer={owner} is not an owner. Current owners={owners}")
        if not signature.holds(service.chain, row["safe"], preimage):
            raise _refused(f"Signature=0x{signature.raw.hex()} for owner={owner} is not valid")
        if owner in signers:
            raise _refused(f"Signature for owner={owner} is duplicated")
        signers.append(owner)


def _safe_tx(row: sqlite3.Row) -> SafeTx:
    return SafeTx(
        to=row["to"],
        value=int(row["value"]),
        data=bytes.fromhex((row["data"] or "0x")[2:]),
        operation=row["operation"],
        safe_tx_gas=int(row["safe_tx_gas"]),
        base_gas=int(row["base_gas"]),
        gas_price=int(row["gas_price"]),
        gas_token=row["gas_token"] or ZERO_ADDRESS,
        refund_receiver=row["refund_receiver"] or ZERO_ADDRESS,
        nonce=row["nonce"],
    )


def _refused(message: str) -> ApiError:
    return ApiError(400, {"signature": [message]})
