"""One app contract owned by a Safe, in two forms: the real adapter on anvil, and the fake."""

from abc import ABC, abstractmethod

from sandbox.anvil import Anvil
from sandbox.chain.accounts import DEPLOYER, OUTSIDER, OWNERS
from sandbox.chain.apps import deploy_dstack_app, transfer_to_safe
from sandbox.chain.local import LocalChain, encode_call
from sandbox.chain.safes import DEPLOYMENTS, approve_and_execute, deploy_safe
from service.adapters.chain import JsonRpcChain
from service.domain.chain import FactKind, SafeState
from service.ports import Chain
from tests.support.builders import APP, SAFE
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

    def mine(self, blocks: int) -> None:
        self._anvil.rpc("anvil_mine", [hex(blocks)])

    def reorg(self, blocks: int) -> None:
        # Without a transaction of its own the new branch can have the very same blocks.
        transfer = {"from": OUTSIDER.address, "to": OUTSIDER.address, "value": "0x1"}
        self._anvil.rpc("anvil_reorg", [blocks, [[transfer, 0]]])
