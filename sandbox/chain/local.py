"""Calls, transactions and deployments on a local chain whose dev accounts the node has unlocked."""

from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.grammar import TupleType, parse
from eth_utils.abi import function_signature_to_4byte_selector
from eth_utils.address import to_checksum_address
from eth_utils.conversions import to_hex
from eth_utils.crypto import keccak

from sandbox.chain.accounts import DEPLOYER
from sandbox.jsonrpc import JsonRpc
from sandbox.polling import wait_for

SALT_ZERO = bytes(32)
# Two CREATE2 factories: Safe's own, used from 1.4.1 on, and the older one, with which anvil starts.
SINGLETON_FACTORY = "0x914d7Fec6aaC8cd542e72Bca78B30650d45643d7"
DETERMINISTIC_DEPLOYER = "0x4e59b44847b379578588920cA78FbF26c0B4956C"
_RECEIPT_SECONDS = 60.0


class ChainError(RuntimeError):
    """The local chain did not do what was asked of it."""


def encode_call(signature: str, *arguments: object) -> bytes:
    """Return calldata for a signature such as `addComposeHash(bytes32)`."""
    selector = bytes(function_signature_to_4byte_selector(signature))
    if signature.endswith("()"):
        return selector
    types = parse(signature[signature.index("(") :])
    if not isinstance(types, TupleType):
        raise TypeError(f"{signature} is no function signature")
    return selector + encode([part.to_type_str() for part in types.components], arguments)


def create2_address(deployer: str, salt: bytes, creation_code: bytes) -> str:
    """Return the checksummed address of a CREATE2 deployment (EIP-1014)."""
    packed = b"\xff" + bytes.fromhex(deployer[2:]) + salt + keccak(creation_code)
    return to_checksum_address(keccak(packed)[12:])


class LocalChain:
    """A development node (anvil) seen as a place to deploy and transact.

    Args:
        rpc: JSON-RPC client of the node.
    """

    def __init__(self, rpc: JsonRpc) -> None:
        self.rpc = rpc
        self.chain_id = int(rpc("eth_chainId"), 16)

    def call(self, to: str, signature: str, *arguments: object, returns: str, block: str = "latest") -> Any:  # noqa: ANN401 - the type is named by `returns`
        """Read from a contract.

        Args:
            to: contract address.
            signature: as `owner()`.
            arguments: values for the signature's types.
            returns: one ABI type, as `address`.
            block: number in hex, or a tag such as `latest`.

        Returns:
            The decoded value; addresses checksummed.

        Raises:
            ChainError: no code there, or it answered nothing.
            RpcError: it reverted.
        """
        request = {"to": to, "data": to_hex(encode_call(signature, *arguments))}
        answer = bytes.fromhex(self.rpc("eth_call", [request, block])[2:])
        if not answer:
            raise ChainError(f"{to} answered nothing to {signature}")
        value = decode([returns], answer)[0]
        if returns == "address":
            return to_checksum_address(value)
        if returns == "address[]":
            return [to_checksum_address(address) for address in value]
        return value

    def has_code(self, address: str) -> bool:
        """Say whether there is a contract at the address."""
        return bool(self.rpc("eth_getCode", [address, "latest"]) != "0x")

    def submit(self, sender: str, to: str | None, data: bytes, *, value: int = 0, gas: int | None = None) -> str:
        """Send a transaction from an unlocked account and return its hash without waiting.

        Args:
            sender: an unlocked account.
            to: None deploys `data`.
            data: calldata or creation code.
            value: wei.
            gas: gas limit; None takes twice the estimate, and so raises RpcError for what would revert.
        """
        request = {"from": sender, "data": to_hex(data), "value": hex(value)}
        if to is not None:
            request["to"] = to
        if gas is None:  # left to itself anvil mines what reverts, with the whole block's gas
            gas = 2 * int(self.rpc("eth_estimateGas", [request]), 16)
        request["gas"] = hex(gas)
        return str(self.rpc("eth_sendTransaction", [request]))

    def receipt(self, transaction_hash: str) -> dict[str, Any]:
        """Wait until a transaction is mined and return its raw receipt (which may say `status` 0x0).

        Raises:
            ChainError: not mined in a minute.
        """
        receipt: dict[str, Any] | None = wait_for(
            lambda: self.rpc("eth_getTransactionReceipt", [transaction_hash]), _RECEIPT_SECONDS
        )
        if receipt is None:
            raise ChainError(f"{transaction_hash} was not mined within {_RECEIPT_SECONDS:.0f} s")
        return receipt

    def send(
        self, sender: str, to: str | None, data: bytes, *, value: int = 0, gas: int | None = None
    ) -> dict[str, Any]:
        """`submit`, then `receipt`."""
        return self.receipt(self.submit(sender, to, data, value=value, gas=gas))

    def deploy(self, creation_code: bytes, sender: str = DEPLOYER.address) -> str:
        """Deploy by CREATE and return the checksummed address."""
        return to_checksum_address(self.send(sender, None, creation_code)["contractAddress"])

    def deploy_deterministic(self, *creation_codes: bytes, factory: str = SINGLETON_FACTORY) -> list[str]:
        """Deploy each code with salt 0 through a CREATE2 factory, unless it is there already.

        Returns:
            The checksummed addresses, the same on every chain.
        """
        if not self.has_code(factory):  # anvil carries the older factory, whose code is the same
            code = self.rpc("eth_getCode", [DETERMINISTIC_DEPLOYER, "latest"])
            self.rpc("anvil_setCode", [factory, code])
        addresses = [create2_address(factory, SALT_ZERO, code) for code in creation_codes]
        pending = [
            self.submit(DEPLOYER.address, factory, SALT_ZERO + code)
            for code, address in zip(creation_codes, addresses, strict=True)
            if not self.has_code(address)
        ]
        for transaction_hash in pending:
            self.receipt(transaction_hash)
        missing = [address for address in addresses if not self.has_code(address)]
        if missing:
            raise ChainError(f"nothing was deployed at {', '.join(missing)}")
        return addresses
