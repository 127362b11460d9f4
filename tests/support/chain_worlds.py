"""One app contract owned by a Safe, in two forms: the real adapter on anvil, and the fake."""

from abc import ABC, abstractmethod

from sandbox.anvil import Anvil
from sandbox.chain.accounts import DEPLOYER, OUTSIDER, OWNERS
from sandbox.chain.apps import deploy_dstack_app, transfer_to_safe
from sandbox.chain.local import LocalChain, encode_call
from sandbox.chain.safes import DEPLOYMENTS, approve_and_execute, deploy_safe, next_nonce
from service.adapters.chain import JsonRpcChain
from service.domain.calls import rejection_call, safe_tx_hash
from service.domain.chain import FactKind, SafeState
from service.ports import Chain
from tests.support.builders import APP, CHAIN_ID, SAFE
from tests.support.fake_chain import FakeChain

DEPTH = 3
_CALLS = {
    FactKind.HASH_ADDED: "addComposeHash(bytes32)",
    FactKind.HASH_REMOVED: "removeComposeHash(bytes32)",
    FactKind.DEVICE_ADDED: "addDevice(bytes32)",
    FactKind.DEVICE_REMOVED: "removeDevice(bytes32)",
    FactKind.ANY_DEVICE_SET: "setAllowAnyDevice(bool)",
}


class ChainWorld(ABC):
    """A chain whose blocks are final ``DEPTH`` below the head, with an app and the 2-of-3 Safe that owns it."""

    chain: Chain
    app: str
    safe: str

    @abstractmethod
    def log(self, kind: FactKind, value: str) -> None:
        """The Safe changes the allowlist, in a block of its own."""

    @abstractmethod
    def execute(self) -> str:
        """The Safe executes a transaction that changes nothing, in a block of its own; its safeTxHash."""

    @abstractmethod
    def approve_hash(self, owner: int, safe_tx_hash: str) -> None:
        """An owner approves a hash on chain, in a block of its own."""

    @abstractmethod
    def mine(self, blocks: int) -> None:
        """So many empty blocks."""

    @abstractmethod
    def reorg(self, blocks: int) -> None:
        """Replace the newest blocks by as many without the transactions they held."""


class FakeChainWorld(ChainWorld):
    def __init__(self) -> None:
        self._fake = FakeChain(DEPTH)
        self.chain = self._fake
        self.app, self.safe = APP, SAFE
        owners = tuple(owner.address for owner in OWNERS)
        self._fake.safes[SAFE] = SafeState(
            SAFE, "1.4.1", owners, 2, 0, singleton=DEPLOYMENTS["1.4.1"].singleton, l2=True
        )
        self._nonce = 0

    def log(self, kind: FactKind, value: str) -> None:
        self._nonce += 1
        self._fake.mine((kind, value), nonce=self._nonce)

    def execute(self) -> str:
        tx_hash = safe_tx_hash(CHAIN_ID, SAFE, rejection_call(SAFE), self._nonce)
        self._fake.execute(tx_hash, self._nonce)
        self._nonce += 1
        return tx_hash

    def approve_hash(self, owner: int, safe_tx_hash: str) -> None:
        self._fake.approve_hash(OWNERS[owner].address, safe_tx_hash)

    def mine(self, blocks: int) -> None:
        self._fake.mine(empty=blocks - 1)

    def reorg(self, blocks: int) -> None:
        self._fake.reorg(blocks)


class RealChainWorld(ChainWorld):
    def __init__(self, anvil: Anvil, local: LocalChain, chain: JsonRpcChain) -> None:
        self._anvil, self._local = anvil, local
        self.chain = chain
        self.safe = deploy_safe(local)
        self.app = deploy_dstack_app(local, owner=DEPLOYER.address)
        transfer_to_safe(local, self.app, self.safe)

    def log(self, kind: FactKind, value: str) -> None:
        argument: object = bytes.fromhex(value[2:])
        if kind is FactKind.ANY_DEVICE_SET:
            argument = int(value, 16) == 1
        approve_and_execute(self._local, self.safe, self.app, encode_call(_CALLS[kind], argument))

    def execute(self) -> str:
        nonce = next_nonce(self._local, self.safe)
        approve_and_execute(self._local, self.safe, self.safe, b"")
        return safe_tx_hash(self._local.chain_id, self.safe, rejection_call(self.safe), nonce)

    def approve_hash(self, owner: int, safe_tx_hash: str) -> None:
        call = encode_call("approveHash(bytes32)", bytes.fromhex(safe_tx_hash[2:]))
        self._local.send(OWNERS[owner].address, self.safe, call)

    def mine(self, blocks: int) -> None:
        self._anvil.rpc("anvil_mine", [hex(blocks)])

    def reorg(self, blocks: int) -> None:
        # Without a transaction of its own the new branch can have the very same blocks.
        transfer = {"from": OUTSIDER.address, "to": OUTSIDER.address, "value": "0x1"}
        self._anvil.rpc("anvil_reorg", [blocks, [[transfer, 0]]])
