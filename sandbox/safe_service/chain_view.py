"""What the service reads from the chain, always live."""

from functools import cached_property

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address
from eth_utils.conversions import to_hex
from eth_utils.crypto import keccak

from sandbox.chain.local import ChainError, LocalChain, encode_call
from sandbox.chain.safes import DEPLOYMENTS
from sandbox.jsonrpc import JsonRpc, RpcError

_SENTINEL = "0x0000000000000000000000000000000000000001"
_SINGLETON_SLOT = "0x0"
# The Safe keeps these at the keccak256 of a name.
_FALLBACK_HANDLER_SLOT = to_hex(keccak(text="fallback_manager.handler.address"))
_GUARD_SLOT = to_hex(keccak(text="guard_manager.guard.address"))
_MODULE_GUARD_SLOT = to_hex(keccak(text="module_manager.module_guard.address"))
_EIP1271_MAGIC = bytes.fromhex("1626ba7e")
_LEGACY_MAGIC = bytes.fromhex("20c13b0b")  # of the draft that Safes before 1.5.0 still follow
_ASK_WITH_PREIMAGE = ("1.3.0", "1.4.1")
_MODULES_PAGE = 100
L2_SINGLETONS = {deployment.singleton: version for version, deployment in DEPLOYMENTS.items()}


class NoSafeError(Exception):
    """There is no Safe at the address."""


class ChainView:
    """Reads through one node.

    Args:
        rpc_url: its JSON-RPC address.
    """

    def __init__(self, rpc_url: str) -> None:
        self.rpc = JsonRpc(rpc_url)

    @cached_property
    def _chain(self) -> LocalChain:
        return LocalChain(self.rpc)

    @property
    def chain_id(self) -> int:
        """EIP-155 chain id."""
        return self._chain.chain_id

    def owners(self, safe: str, block: str = "latest") -> list[str]:
        """The Safe's owners, in its own order.

        Raises:
            NoSafeError: nothing there answers as a Safe does.
        """
        try:
            return list(self._chain.call(safe, "getOwners()", returns="address[]", block=block))
        except (ChainError, RpcError) as error:
            raise NoSafeError(safe) from error

    def threshold(self, safe: str, block: str = "latest") -> int:
        """How many owners must approve."""
        return int(self._chain.call(safe, "getThreshold()", returns="uint256", block=block))

    def nonce(self, safe: str, block: str = "latest") -> int:
        """The nonce that is executed next."""
        return int(self._chain.call(safe, "nonce()", returns="uint256", block=block))

    def info(self, safe: str) -> dict[str, object]:
        """Everything the safe-info endpoint says."""
        singleton = self._address_at(safe, _SINGLETON_SLOT)
        version = self._chain.call(safe, "VERSION()", returns="string")
        return {
            "address": safe,
            "nonce": str(self.nonce(safe)),
            "threshold": self.threshold(safe),
            "owners": self.owners(safe),
            "masterCopy": singleton,
            "modules": self._modules(safe),
            "fallbackHandler": self._address_at(safe, _FALLBACK_HANDLER_SLOT),
            "guard": self._address_at(safe, _GUARD_SLOT),
            "moduleGuard": self._address_at(safe, _MODULE_GUARD_SLOT),
            "version": f"{version}+L2" if singleton in L2_SINGLETONS else version,
        }

    def approved(self, safe: str, owner: str, safe_tx_hash: bytes) -> bool:
        """Whether the owner approved the hash on chain."""
        return bool(self._chain.call(safe, "approvedHashes(address,bytes32)", owner, safe_tx_hash, returns="uint256"))

    def signed_by_contract(self, safe: str, owner: str, preimage: bytes, signature: bytes) -> bool:
        """Whether the contract `owner` says the signature is its own, asked in the way the Safe would (EIP-1271)."""
        version = self._chain.call(safe, "VERSION()", returns="string")
        if version in _ASK_WITH_PREIMAGE:
            question, expected = ("isValidSignature(bytes,bytes)", preimage), _LEGACY_MAGIC
        else:
            question, expected = ("isValidSignature(bytes32,bytes)", keccak(preimage)), _EIP1271_MAGIC
        try:
            answer = self._chain.call(owner, *question, signature, returns="bytes4")
        except (ChainError, RpcError, DecodingError):
            return False
        return bool(answer == expected)

    def _modules(self, safe: str) -> list[str]:
        data = encode_call("getModulesPaginated(address,uint256)", _SENTINEL, _MODULES_PAGE)
        answer = self.rpc("eth_call", [{"to": safe, "data": to_hex(data)}, "latest"])
        modules, _next = decode(["address[]", "address"], bytes.fromhex(answer[2:]))
        return [to_checksum_address(module) for module in modules]

    def _address_at(self, safe: str, slot: str) -> str:
        word: str = self.rpc("eth_getStorageAt", [safe, slot, "latest"])
        return to_checksum_address(bytes.fromhex(word[2:].zfill(64))[-20:])
