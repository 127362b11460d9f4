"""How a Safe came to be."""

from typing import Any

from eth_abi.abi import decode
from eth_utils.abi import function_signature_to_4byte_selector
from eth_utils.address import to_checksum_address

from sandbox.safe_service import clock
from sandbox.safe_service.decoding import decode_call
from sandbox.safe_service.errors import ApiError
from sandbox.safe_service.service import Service

_CREATE = bytes(function_signature_to_4byte_selector("createProxyWithNonce(address,bytes,uint256)"))


def creation(service: Service, safe: str) -> dict[str, Any]:
    """The creating transaction; what was set up, if it called a proxy factory directly.

    Raises:
        ApiError: 404 for a Safe that is not indexed.
    """
    row = service.database.one("SELECT * FROM safes WHERE address = ?", [safe])
    if row is None:
        raise ApiError(404)
    outer = service.chain.rpc("eth_getTransactionByHash", [row["creation_hash"]])
    data = bytes.fromhex(outer["input"][2:])
    singleton = setup = salt = None
    if data[:4] == _CREATE:
        singleton, setup, salt = decode(["address", "bytes", "uint256"], data[4:])
    return {
        "created": clock.show(row["created"]),
        "creator": to_checksum_address(outer["from"]),
        "transactionHash": row["creation_hash"],
        "factoryAddress": to_checksum_address(outer["to"]),
        "masterCopy": None if singleton is None else to_checksum_address(singleton),
        "setupData": None if setup is None else "0x" + setup.hex(),
        "saltNonce": None if salt is None else str(salt),
        "dataDecoded": None if setup is None else decode_call(setup),
        "userOperation": None,
    }
