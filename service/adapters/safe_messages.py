"""The EIP-712 message by which a proposer asks the Safe Transaction Service to delete a proposal."""

from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak

_TOTP_SECONDS = 3600


def delete_request_digest(chain_id: int, safe: str, safe_tx_hash: str, now: float) -> str:
    """``0x``-prefixed digest of ``DeleteRequest``; the service takes it in this clock hour and in the next.

    Args:
        chain_id: of the Safe.
        safe: checksummed address, the verifying contract of the domain.
        safe_tx_hash: ``0x``-prefixed bytes32.
        now: seconds since the epoch.
    """
    message = encode_typed_data(
        domain_data={
            "name": "Safe Transaction Service",
            "version": "1.0",
            "chainId": chain_id,
            "verifyingContract": safe,
        },
        message_types={
            "DeleteRequest": [{"name": "safeTxHash", "type": "bytes32"}, {"name": "totp", "type": "uint256"}]
        },
        message_data={"safeTxHash": safe_tx_hash, "totp": int(now) // _TOTP_SECONDS},
    )
    return "0x" + keccak(b"\x19" + message.version + message.header + message.body).hex()
