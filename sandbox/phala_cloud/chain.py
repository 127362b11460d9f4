"""How the sandbox sees the chain: raw JSON-RPC, by default at the head, on demand some blocks behind it."""

import re
from dataclasses import dataclass
from typing import Any

import httpx

from sandbox.jsonrpc import JsonRpc, RpcError
from sandbox.phala_cloud.settings import SettingsStore

_ALLOWED_COMPOSE_HASHES = "0x2f6622e5"
_ALLOWED_DEVICE_IDS = "0xbf8b211b"
_ALLOW_ANY_DEVICE = "0x3440a16a"
_OWNER = "0x8da5cb5b"
_GET_THRESHOLD = "0xe75235b8"
_COMPOSE_HASH_ADDED = "0xfecb34306dd9d8b785b54d65489d06afc8822a0893ddacedff40c50a4942d0af"

_TX_HASH = re.compile(r"0x[0-9a-fA-F]{64}")
_WORD = 64
_EXECUTION_REVERTED = 3
_TIMEOUT_SECONDS = 10.0


class ChainUnavailableError(Exception):
    """No usable answer from the node."""


@dataclass(frozen=True)
class Allowance:
    """What the app contract says at one block."""

    compose_hash_allowed: bool
    allow_any_device: bool
    device_listed: bool

    @property
    def device_id_allowed(self) -> bool:
        """Whether the device may boot, by its own entry or because any may."""
        return self.allow_any_device or self.device_listed

    @property
    def is_allowed(self) -> bool:
        """Whether a CVM with this hash on this device may boot."""
        return self.compose_hash_allowed and self.device_id_allowed


class ChainView:
    """Reads of one chain. Hashes and device ids are 64 hex digits without 0x, addresses have it."""

    def __init__(self, rpc_url: str | None, settings: SettingsStore) -> None:
        self.rpc_url = rpc_url
        self._settings = settings
        self._rpc = None if rpc_url is None else JsonRpc(rpc_url, timeout=_TIMEOUT_SECONDS)

    def allowance(self, app: str, compose_hash: str, device_id: str, *, lagging: bool = True) -> Allowance:
        """The contract's word on a hash and a device, at one block.

        Raises:
            ChainUnavailableError: the node did not answer.
        """
        block = hex(self._block(self._settings.get().state_lag_blocks if lagging else 0))
        return Allowance(
            compose_hash_allowed=self._flag(app, _ALLOWED_COMPOSE_HASHES + compose_hash, block),
            allow_any_device=self._flag(app, _ALLOW_ANY_DEVICE, block),
            device_listed=self._flag(app, _ALLOWED_DEVICE_IDS + device_id, block),
        )

    def registers(self, transaction_hash: str, app: str, compose_hash: str) -> bool:
        """Whether this transaction succeeded and made this app contract emit `ComposeHashAdded(hash)`.

        Raises:
            ChainUnavailableError: the node did not answer.
        """
        if not _TX_HASH.fullmatch(transaction_hash):
            return False
        receipt = self._call("eth_getTransactionReceipt", [transaction_hash])
        if receipt is None or int(receipt["status"], 16) != 1:
            return False
        if int(receipt["blockNumber"], 16) > self._block(self._settings.get().receipt_lag_blocks):
            return False
        return any(
            log["address"].lower() == app.lower()
            and log["topics"][:1] == [_COMPOSE_HASH_ADDED]
            and log["data"].lower() == f"0x{compose_hash}"
            for log in receipt["logs"]
        )

    def owner(self, app: str) -> str | None:
        """The contract's owner, lower case; None if it has none to tell.

        Raises:
            ChainUnavailableError: the node did not answer.
        """
        word = self._word(app, _OWNER, "latest")
        return None if word is None else f"0x{word[-40:]}"

    def account_type(self, address: str) -> str:
        """`eoa`, `safe` or `contract`.

        Raises:
            ChainUnavailableError: the node did not answer.
        """
        if self._call("eth_getCode", [address, "latest"]) == "0x":
            return "eoa"
        return "contract" if self._word(address, _GET_THRESHOLD, "latest") is None else "safe"

    def close(self) -> None:
        """Close the connections to the node."""
        if self._rpc is not None:
            self._rpc.close()

    def _block(self, blocks_behind: int) -> int:
        return max(0, int(self._call("eth_blockNumber", []), 16) - blocks_behind)

    def _flag(self, address: str, data: str, block: str) -> bool:
        word = self._word(address, data, block)
        return word is not None and int(word, 16) == 1

    def _word(self, address: str, data: str, block: str) -> str | None:
        """The 32-byte answer of a view; None where there is no such contract or function."""
        try:
            answer = self._call("eth_call", [{"to": address, "data": data}, block])
        except _RevertedError:
            return None
        text = str(answer).removeprefix("0x")
        return text if len(text) == _WORD else None

    def _call(self, method: str, parameters: list[Any]) -> Any:  # noqa: ANN401 - JSON-RPC results are of any type
        if self._rpc is None:
            raise ChainUnavailableError("the sandbox was started without a chain")
        try:
            return self._rpc(method, parameters)
        except RpcError as error:
            if error.code == _EXECUTION_REVERTED:
                raise _RevertedError from error
            raise ChainUnavailableError(str(error)) from error
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise ChainUnavailableError(f"{method}: {type(error).__name__}") from error


class _RevertedError(Exception):
    """The called function does not exist or reverted."""
