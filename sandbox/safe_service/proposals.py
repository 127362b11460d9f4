"""Proposing a Safe transaction, and deleting a proposal."""

from typing import TYPE_CHECKING, Any

from eth_utils.crypto import keccak

from sandbox.chain.safes import ZERO_ADDRESS, SafeTx, safe_tx_preimage
from sandbox.safe_service import delegates
from sandbox.safe_service.chain_view import NoSafeError
from sandbox.safe_service.confirmations import store
from sandbox.safe_service.errors import ApiError, refused
from sandbox.safe_service.forms import Form
from sandbox.safe_service.messages import delete_digests
from sandbox.safe_service.representation import stored_origin
from sandbox.safe_service.service import Service
from sandbox.safe_service.signatures import RECOVERED, SIZE, SafeSignature, parse_signatures

if TYPE_CHECKING:
    from sandbox.safe_service.database import Value

_HASH_SIZE = 32
_ORIGIN_LENGTH = 200
_CREATE = 2


class Proposal:
    """The fields of a proposal, read from its body.

    Raises:
        ApiError: 422 naming every field that is wrong.
    """

    def __init__(self, body: dict[str, Any]) -> None:
        form = Form(body)
        gas_token = form.address("gasToken", required=False)
        refund_receiver = form.address("refundReceiver", required=False)
        self.tx = SafeTx(
            to=form.address("to") or ZERO_ADDRESS,
            value=form.integer("value"),
            data=form.hexadecimal("data", required=False) or b"",
            operation=form.integer("operation"),
            safe_tx_gas=form.integer("safeTxGas"),
            base_gas=form.integer("baseGas"),
            gas_price=form.integer("gasPrice"),
            gas_token=gas_token or ZERO_ADDRESS,
            refund_receiver=refund_receiver or ZERO_ADDRESS,
            nonce=form.nonce("nonce"),
        )
        self.gas_token, self.refund_receiver = gas_token, refund_receiver  # what is not given reads back as null
        self.given_hash = form.hexadecimal("contractTransactionHash", minimum=_HASH_SIZE)
        self.sender = form.address("sender") or ""
        self.signature = form.hexadecimal("signature", minimum=SIZE, required=False) or b""
        self.origin = stored_origin(form.text("origin", _ORIGIN_LENGTH, required=False))
        form.finish(422)
        if self.tx.operation == _CREATE:
            raise refused(422, "Operation CREATE not supported. Please use Safe CreateLib")


def propose(service: Service, safe: str, body: dict[str, Any]) -> None:
    """Take a proposal, or one more signature for a known one.

    An owner's signatures become confirmations. A delegate's does not: it shows that the delegate is the sender, and
    the proposer is the owner who made it a delegate.

    Raises:
        ApiError: 422 with the reason.
    """
    proposal = Proposal(body)
    preimage = safe_tx_preimage(service.chain.chain_id, safe, proposal.tx)
    digest = keccak(preimage)
    if digest != proposal.given_hash:
        given = "0x" + (proposal.given_hash or b"").hex()
        message = f"Contract-transaction-hash=0x{digest.hex()} does not match provided contract-tx-hash={given}"
        raise refused(422, message)
    _check_not_executed(service, safe, proposal.tx.nonce, "0x" + digest.hex())
    try:
        owners = service.chain.owners(safe)
    except NoSafeError as error:
        message = f"Could not get Safe {safe} owners from blockchain, check contract exists on network "
        raise refused(422, message + _network_name(service.chain.chain_id)) from error
    known_delegates = delegates.valid_for(service, safe, owners)
    signatures = parse_signatures(proposal.signature, digest)
    _check_signatures(
        service, safe, preimage, proposal.sender, signatures, owners, {d["delegate"] for d in known_delegates}
    )
    delegator = next((d["delegator"] for d in known_delegates if d["delegate"] == proposal.sender), None)
    proposer = proposal.sender if proposal.sender in owners else delegator
    _store(service, safe, "0x" + digest.hex(), proposal, proposer, [s for s in signatures if s.owner in owners])


def delete(service: Service, tx_hash: str, body: dict[str, Any]) -> None:
    """Delete a proposal that is not executed, on its proposer's or its proposing delegate's signature.

    Raises:
        ApiError: 404 unknown, 400 with the reason.
    """
    form = Form({**body, "safeTxHash": tx_hash})
    digest = form.hexadecimal("safeTxHash", minimum=_HASH_SIZE) or b""
    signature = form.hexadecimal("signature", minimum=SIZE) or b""
    form.finish(400)
    row = service.database.one("SELECT * FROM transactions WHERE safe_tx_hash = ?", [tx_hash])
    if row is None:
        raise ApiError(404, {"detail": "Multisig transaction not found"})
    if row["executed_at"] is not None:
        raise refused(400, "Executed transactions cannot be deleted")
    if row["proposer"] is None:
        raise refused(400, "Old transactions without proposer cannot be deleted")
    allowed = {row["proposer"]}
    proposers_delegates = delegates.valid_for(service, row["safe"], [row["proposer"]])
    allowed |= {d["delegate"] for d in proposers_delegates if d["delegate"] == row["proposed_by_delegate"]}
    for message in delete_digests(row["safe"], digest, service.chain.chain_id, service.now()):
        parsed = parse_signatures(signature, message)
        if len(parsed) != 1:
            raise refused(400, f"1 owner signature was expected, {len(parsed)} received")
        if parsed[0].kind not in RECOVERED:
            raise refused(400, "Only EOA and ETH_SIGN signatures are supported")
        if parsed[0].owner in allowed:
            with service.database.transaction():
                service.database.run("DELETE FROM confirmations WHERE safe_tx_hash = ?", [tx_hash])
                service.database.run("DELETE FROM transactions WHERE safe_tx_hash = ?", [tx_hash])
            return
    raise refused(400, "Provided signer is not the proposer or the delegate user who proposed the transaction")


def _check_not_executed(service: Service, safe: str, nonce: int, tx_hash: str) -> None:
    executed = service.database.all(
        "SELECT safe_tx_hash, transaction_hash FROM transactions"
        " WHERE safe = ? AND nonce = ? AND executed_at IS NOT NULL ORDER BY safe_tx_hash = ? DESC",
        [safe, nonce, tx_hash],
    )
    if not executed:
        return
    outer = executed[0]["transaction_hash"]
    if executed[0]["safe_tx_hash"] == tx_hash:
        raise refused(422, f"Tx with safe-tx-hash={tx_hash} for safe={safe} was already executed in tx-hash={outer}")
    raise refused(422, f"Tx with nonce={nonce} for safe={safe} already executed in tx-hash={outer}")


def _check_signatures(
    service: Service,
    safe: str,
    preimage: bytes,
    sender: str,
    signatures: list[SafeSignature],
    owners: list[str],
    known_delegates: set[str],
) -> None:
    who = f"is not an owner or delegate. Current owners={owners}. Delegates={known_delegates or set()}"
    allowed = {*owners, *known_delegates}
    if sender not in allowed:
        raise refused(422, f"Sender={sender} {who}")
    signers: list[str] = []
    for signature in signatures:
        owner = signature.owner
        if not signature.holds(service.chain, safe, preimage):
            raise refused(422, f"Signature=0x{signature.raw.hex()} for owner={owner} is not valid")
        if owner in known_delegates and len(signatures) > 1:
            raise refused(422, "Just one signature is expected if using delegates")
        if owner not in allowed:
            raise refused(422, f"Signer={owner} {who}")
        if owner in signers:
            raise refused(422, f"Signature for owner={owner} is duplicated")
        signers.append(owner)
    if signers and sender not in signers:
        raise refused(422, f"Signature does not match sender={sender}. Calculated owners={signers}")


def _store(
    service: Service,
    safe: str,
    tx_hash: str,
    proposal: Proposal,
    proposer: str | None,
    signatures: list[SafeSignature],
) -> None:
    database, now, tx = service.database, service.micros(), proposal.tx
    trusted = bool(proposal.signature)
    with database.transaction():
        known = database.one("SELECT threshold FROM safes WHERE address = ?", [safe])
        fields: dict[str, Value] = {
            "safe_tx_hash": tx_hash,
            "safe": safe,
            "to": tx.to,
            "value": str(tx.value),
            "data": "0x" + tx.data.hex() if tx.data else None,
            "operation": tx.operation,
            "safe_tx_gas": str(tx.safe_tx_gas),
            "base_gas": str(tx.base_gas),
            "gas_price": str(tx.gas_price),
            "gas_token": proposal.gas_token,
            "refund_receiver": proposal.refund_receiver,
            "nonce": tx.nonce,
            "created": now,
            "modified": now,
            "proposer": proposer,
            "proposed_by_delegate": None if proposer == proposal.sender else proposal.sender,
            "origin": proposal.origin,
            "trusted": trusted,
            "threshold": known["threshold"] if known else None,
        }
        new = database.insert("transactions", fields, or_ignore=True)
        if not new and trusted:
            database.run(
                "UPDATE transactions SET origin = ?, trusted = 1 WHERE safe_tx_hash = ? AND NOT trusted",
                [proposal.origin, tx_hash],
            )
        store(database, tx_hash, signatures, now)
        ledger: dict[str, Value] = {"at": now, "safe": safe, "safe_tx_hash": tx_hash, "nonce": tx.nonce}
        database.insert("accepted", {**ledger, "sender": proposal.sender, "origin": proposal.origin})


def _network_name(chain_id: int) -> str:
    from safe_eth.eth.ethereum_network import EthereumNetwork  # noqa: PLC0415 - a second to import, rarely needed

    return str(EthereumNetwork(chain_id).name)
