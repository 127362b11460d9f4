"""An anvil whose branches are told block by block, with an app contract for each schedule."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import httpx
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from sandbox.anvil import Anvil
from sandbox.chain.accounts import OUTSIDER
from sandbox.chain.apps import deploy_dstack_app, transfer_to_safe
from sandbox.chain.local import LocalChain, encode_call
from sandbox.chain.safes import SafeTx, deploy_safe, execution_data, next_nonce, owner_sign, safe_tx_hash
from tests.support.reorg_stories import Content, Deed

_ALLOW = "addComposeHash(bytes32)"
_REMOVE = "removeComposeHash(bytes32)"
_ADDED = "0x" + keccak(text="ComposeHashAdded(bytes32)").hex()
_REMOVED = "0x" + keccak(text="ComposeHashRemoved(bytes32)").hex()
_EXECUTED = "0x" + keccak(text="ExecutionSuccess(bytes32,uint256)").hex()
_GAS = 400_000
_BASE_FEE = hex(10**9)
_GAS_PRICE = hex(10**10)
_ETHER = 10**18


@dataclass(frozen=True, slots=True)
class Log:
    """A log about a hash on the canonical chain."""

    added: bool
    block_number: int
    block_hash: str
    transaction_hash: str


@dataclass(frozen=True, slots=True)
class Party:
    """Who allows hashes: an account with two app contracts, one its own and one of a Safe whose owner it is."""

    account: LocalAccount
    own_app: str
    safe: str
    safe_app: str


@dataclass(frozen=True, slots=True)
class DeedCall:
    """Of what a deed is about: ``safe`` executes it, or the party's account itself."""

    app: str
    safe: str | None
    compose_hash: str


class BranchingChain:
    """Truth about one anvil, asked from itself, and what happens on it."""

    def __init__(self, anvil: Anvil, local: LocalChain, parties: int) -> None:
        self.rpc_url = anvil.rpc_url
        self._rpc = anvil.rpc
        self.heard: Callable[[str, SafeTx, str], None] = lambda _safe, _tx, _hash: None
        """Told of each Safe transaction that is sent: Safe, transaction, safeTxHash."""
        self._local = local
        self._rpc("anvil_setBlockTimestampInterval", [1])  # not by the clock: a story has the same blocks in each run
        self.parties = tuple(self._party(index) for index in range(parties))
        self._rpc("evm_setAutomine", [False])
        self._genesis_seconds = int(self._rpc("eth_getBlockByNumber", ["latest", False])["timestamp"], 16) - self.head
        self._start = self._rpc("evm_snapshot")

    def _party(self, index: int) -> Party:
        account: LocalAccount = Account.from_key(keccak(text=f"party {index}"))
        self._rpc("anvil_setBalance", [account.address, hex(1000 * _ETHER)])
        own_app = deploy_dstack_app(self._local, "one-step", account.address, allow_any_device=True)
        safe = deploy_safe(self._local, owners=(account.address,), threshold=1)
        safe_app = deploy_dstack_app(self._local, "one-step", allow_any_device=True)
        transfer_to_safe(self._local, safe_app, safe)
        return Party(account, own_app, safe, safe_app)

    def reset(self) -> None:
        """Back to the beginning of every story."""
        self._rpc("evm_revert", [self._start])
        self._start = self._rpc("evm_snapshot")

    # What happens

    def drop(self, blocks: int) -> None:
        """Lose the newest blocks."""
        if blocks:
            self._rpc("anvil_rollback", [blocks])

    def mine(self, content: Content, call: Callable[[Deed], DeedCall]) -> None:
        """One more block."""
        nonces: Counter[str] = Counter()
        if content.mark:
            transfer = {
                "from": OUTSIDER.address,
                "to": OUTSIDER.address,
                "value": hex(content.mark),
                "gasPrice": _GAS_PRICE,
            }
            self._rpc("eth_sendTransaction", [transfer])
        for deed in content.deeds:
            self._rpc("eth_sendRawTransaction", [self._signed(deed, call(deed), nonces)])
        # Neither by the clock nor by what was dropped: the same content on the same parent is the same block.
        self._rpc("anvil_setNextBlockBaseFeePerGas", [_BASE_FEE])
        self._rpc("evm_setNextBlockTimestamp", [self._genesis_seconds + self.head + 1])
        self._rpc("anvil_mine", ["0x1"])

    def _signed(self, deed: Deed, call: DeedCall, ahead: Counter[str]) -> str:
        """A transaction with the next nonces of the branch; ``ahead`` counts those of the same block."""
        account = self.parties[deed.schedule].account
        data = encode_call(_ALLOW if deed.verb == "allow" else _REMOVE, bytes.fromhex(call.compose_hash[2:]))
        to = call.app
        if call.safe is not None:
            nonce = next_nonce(self._local, call.safe) + ahead[call.safe]
            tx = SafeTx(to=to, data=data, nonce=nonce)
            tx_hash = safe_tx_hash(self._local.chain_id, call.safe, tx)
            self.heard(call.safe, tx, "0x" + tx_hash.hex())
            to, data = call.safe, execution_data(tx, {account.address: owner_sign(tx_hash, account)})
            ahead[call.safe] += 1
        nonce = int(self._rpc("eth_getTransactionCount", [account.address, "latest"]), 16) + ahead[account.address]
        ahead[account.address] += 1
        signed = account.sign_transaction(
            {
                "type": 2,
                "chainId": self._local.chain_id,
                "nonce": nonce,
                "to": to,
                "value": 0,
                "data": data,
                "gas": _GAS + deed.twist,
                "maxFeePerGas": 10**11,
                "maxPriorityFeePerGas": 10**9,
            }
        )
        return "0x" + signed.raw_transaction.hex().removeprefix("0x")

    # The truth

    @property
    def head(self) -> int:
        """Number of the newest block."""
        return int(self._rpc("eth_blockNumber"), 16)

    def block_hash(self, number: int) -> str | None:
        """Hash of the canonical block at a height."""
        block = self._rpc("eth_getBlockByNumber", [hex(number), False])
        return None if block is None else str(block["hash"])

    def allows(self, app: str, compose_hash: str, at: int) -> bool:
        """What the contract says at a height."""
        value = bytes.fromhex(compose_hash[2:])
        return bool(self._local.call(app, "allowedComposeHashes(bytes32)", value, returns="bool", block=hex(at)))

    def execution(self, safe: str, tx_hash: str) -> str | None:
        """Hash of the canonical transaction that executed a Safe transaction."""
        query = {"fromBlock": "0x0", "toBlock": "latest", "address": safe, "topics": [_EXECUTED, tx_hash]}
        return next((str(log["transactionHash"]) for log in self._rpc("eth_getLogs", [query])), None)

    def logs(self, app: str, compose_hash: str) -> list[Log]:
        """Every canonical log about a hash, in order."""
        query = {"fromBlock": "0x0", "toBlock": "latest", "address": app, "topics": [[_ADDED, _REMOVED]]}
        return [
            Log(log["topics"][0] == _ADDED, int(log["blockNumber"], 16), log["blockHash"], log["transactionHash"])
            for log in self._rpc("eth_getLogs", [query])
            if log["data"] == compose_hash
        ]


class InterruptingTransport(httpx.BaseTransport):
    """Passes requests on to the node; tells before each one, so that something can come between two of them."""

    def __init__(self) -> None:
        self._network = httpx.HTTPTransport()
        self.before: Callable[[], None] = lambda: None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.before()
        return self._network.handle_request(request)

    def close(self) -> None:
        self._network.close()
