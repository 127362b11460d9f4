"""What delegators and proposers sign for the service itself: EIP-712, valid for this hour and the next."""

from datetime import datetime

from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak

_HOUR = 3600
_DOMAIN: dict[str, object] = {"name": "Safe Transaction Service", "version": "1.0"}
_DOMAIN_FIELDS = [{"name": "name", "type": "string"}, {"name": "version", "type": "string"}]
_CHAIN_ID = {"name": "chainId", "type": "uint256"}
_TOTP = {"name": "totp", "type": "uint256"}


def delegate_digests(delegate: str, chain_id: int, now: datetime) -> list[bytes]:
    """Digests that may be signed to add or remove a delegate; the domain may leave the chain id out."""
    with_chain = ({**_DOMAIN, "chainId": chain_id}, [*_DOMAIN_FIELDS, _CHAIN_ID])
    fields = [{"name": "delegateAddress", "type": "address"}, _TOTP]
    return [
        _digest(domain, "Delegate", fields, {"delegateAddress": delegate, "totp": totp})
        for domain in (with_chain, (_DOMAIN, _DOMAIN_FIELDS))
        for totp in _totps(now)
    ]


def delete_digests(safe: str, safe_tx_hash: bytes, chain_id: int, now: datetime) -> list[bytes]:
    """Digests that may be signed to delete a proposal."""
    contract = {"name": "verifyingContract", "type": "address"}
    domain = ({**_DOMAIN, "chainId": chain_id, "verifyingContract": safe}, [*_DOMAIN_FIELDS, _CHAIN_ID, contract])
    fields = [{"name": "safeTxHash", "type": "bytes32"}, _TOTP]
    return [
        _digest(domain, "DeleteRequest", fields, {"safeTxHash": safe_tx_hash, "totp": totp}) for totp in _totps(now)
    ]


def _totps(now: datetime) -> tuple[int, int]:
    totp = int(now.timestamp()) // _HOUR
    return totp, totp - 1


def _digest(
    domain: tuple[dict[str, object], list[dict[str, str]]],
    name: str,
    fields: list[dict[str, str]],
    message: dict[str, object],
) -> bytes:
    types = {"EIP712Domain": domain[1], name: fields}
    typed = {"types": types, "primaryType": name, "domain": domain[0], "message": message}
    signable = encode_typed_data(full_message=typed)
    return keccak(b"\x19" + signable.version + signable.header + signable.body)
