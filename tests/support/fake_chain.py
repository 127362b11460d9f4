"""An EVM chain in memory, with reorgs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from service.domain.calls import ADD_COMPOSE_HASH, ADD_DEVICE, MULTI_SEND_CALL_ONLY, MULTI_SEND_CODE_HASH
from service.domain.chain import (
    Allowed,
    AppOwnership,
    Block,
    ChainFact,
    ChainView,
    FactKind,
    SafeExecution,
    SafeState,
)
from service.domain.errors import StateUnavailable
from tests.support.builders import APP, CHAIN_ID, SAFE
from tests.support.fakes import Faulty


@dataclass
class _MinedBlock:
    block: Block
    facts: list[ChainFact] = field(default_factory=list)
    nonces: dict[str, int] = field(default_factory=dict)
    executions: list[SafeExecution] = field(default_factory=list)
    approved: set[tuple[str, str, str]] = field(default_factory=set)


class FakeChain(Faulty):
    """Blocks with logs; the allowlist at a block is what the logs up to it say. Final is ``depth`` below the head."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.depth = depth
        self.owners: dict[str, AppOwnership] = {APP: AppOwnership(has_code=True, owner=SAFE, pending_owner=None)}
        self.safes: dict[str, SafeState] = {}
        self.code_hashes: dict[str, str] = {MULTI_SEND_CALL_ONLY: MULTI_SEND_CODE_HASH}
        self.reverts: dict[str, str] = {}
        """Why calls of an app contract revert, whoever sends them."""
        self.lag = 0
        """How many blocks the node that tells the head is behind the others."""
        self.tells_logs = False
        """Whether logs come with the head, as they do where it is where it was guessed to be."""
        self._blocks: list[_MinedBlock] = []
        self._fork = 0
        self.mine(empty=10)

    @property
    def chain_id(self) -> int:
        return CHAIN_ID

    # what happens on it

    def mine(self, *logs: tuple[FactKind, str], app: str = APP, empty: int = 0, nonce: int | None = None) -> Block:
        """One block with ``logs`` of ``app`` (and the Safe's nonce set), then ``empty`` more; the first of them."""
        number = len(self._blocks)
        mined = _MinedBlock(self._new_block(number))
        for index, (kind, value) in enumerate(logs):
            transaction = "0x" + hashlib.sha256(f"{mined.block.hash}{index}".encode()).hexdigest()
            mined.facts.append(ChainFact(kind, app, value, transaction, mined.block, index))
        if nonce is not None:
            mined.nonces[SAFE] = nonce
        self._blocks.append(mined)
        for _ in range(empty):
            self._blocks.append(_MinedBlock(self._new_block(len(self._blocks))))
        return mined.block

    def execute(
        self, safe_tx_hash: str, nonce: int, *logs: tuple[FactKind, str], success: bool = True, final: bool = False
    ) -> SafeExecution:
        """A block in which the Safe executes a transaction at a nonce, and what its call logs."""
        block = self.mine(*logs, nonce=nonce + 1)
        transaction = "0x" + hashlib.sha256(f"{block.hash}{safe_tx_hash}".encode()).hexdigest()
        execution = SafeExecution(safe_tx_hash, success, transaction, block)
        self._blocks[-1].executions.append(execution)
        if final:
            self.mine(empty=self.depth - 1)
        return execution

    def set_safe(self, **state: Any) -> None:
        """Change the Safe, in every block."""
        self.safes[SAFE] = replace(self.safes[SAFE], **state)

    def approve_hash(self, owner: str, safe_tx_hash: str) -> None:
        """A block in which an owner of the Safe approves a hash."""
        self.mine()
        self._blocks[-1].approved.add((SAFE, owner, safe_tx_hash))

    def reorg(self, blocks: int) -> None:
        """Replace the newest ``blocks`` by as many empty ones."""
        del self._blocks[-blocks:]
        self._fork += 1
        self.mine(empty=blocks - 1)

    def rewind(self, blocks: int) -> None:
        """Take the newest ``blocks`` away, as a node that is behind shows it."""
        del self._blocks[-blocks:]

    def _new_block(self, number: int) -> Block:
        return Block(number, "0x" + hashlib.sha256(f"{self._fork}/{number}".encode()).hexdigest())

    # the port

    def view(self, also: int | None = None, logs_above: int | None = None) -> ChainView:
        def effect() -> ChainView:
            newest = len(self._blocks) - 1
            head, final = self._blocks[newest - self.lag].block, self._blocks[max(0, newest - self.depth)].block
            below = self._blocks[also].block if also is not None and also <= head.number else None
            guessed = self.tells_logs and logs_above is not None
            return ChainView(head, final, below, self._facts(logs_above + 1, head.number) if guessed else None)

        return self._call("view", effect)

    def block(self, number: int) -> Block | None:
        return self._call("block", lambda: self._blocks[number].block if number < len(self._blocks) else None)

    def facts(self, first: int, last: int) -> Sequence[ChainFact]:
        return self._call("facts", lambda: self._facts(first, last))

    def _facts(self, first: int, last: int) -> Sequence[ChainFact]:
        return [fact for mined in self._blocks[first : last + 1] for fact in mined.facts]

    def allowed_at(
        self, app_contract: str, compose_hash: str, device_id: str, blocks: Sequence[Block]
    ) -> Sequence[Allowed]:
        return [self.allowed(app_contract, compose_hash, device_id, at) for at in blocks]

    def allowed(self, app_contract: str, compose_hash: str, device_id: str, at: Block) -> Allowed:
        return self._call("allowed", lambda: self._allowed(app_contract, compose_hash, device_id, at))

    def _allowed(self, app_contract: str, compose_hash: str, device_id: str, at: Block) -> Allowed:
        hashes, devices, any_device = set(), set(), False
        for mined in self._up_to(at):
            for fact in mined.facts:
                if fact.app_contract != app_contract:
                    continue
                match fact.kind:
                    case FactKind.HASH_ADDED:
                        hashes.add(fact.value)
                    case FactKind.HASH_REMOVED:
                        hashes.discard(fact.value)
                    case FactKind.DEVICE_ADDED:
                        devices.add(fact.value)
                    case FactKind.DEVICE_REMOVED:
                        devices.discard(fact.value)
                    case FactKind.ANY_DEVICE_SET:
                        any_device = int(fact.value, 16) == 1
        return Allowed(compose_hash in hashes, any_device or device_id in devices)

    def ownership(self, app_contract: str, at: Block) -> AppOwnership:
        def effect() -> AppOwnership:
            any_device = self._allowed(app_contract, "", "", at).device
            known = self.owners.get(app_contract, AppOwnership(False, None, None, is_app=False))
            return replace(known, allows_any_device=any_device)

        return self._call("ownership", effect)

    def code_hash(self, address: str, at: Block) -> str | None:
        def effect() -> str | None:
            self._up_to(at)
            return self.code_hashes.get(address)

        return self._call("code_hash", effect)

    def safe(self, address: str, at: Block) -> SafeState | None:
        def effect() -> SafeState | None:
            state = self.safes.get(address)
            for mined in self._up_to(at):
                if state is not None and address in mined.nonces:
                    state = replace(state, nonce=mined.nonces[address])
            return state

        return self._call("safe", effect)

    def executions(self, safe: str, first: int, last: int) -> Sequence[SafeExecution]:
        def effect() -> Sequence[SafeExecution]:
            return [one for mined in self._blocks[first : last + 1] for one in mined.executions if safe == SAFE]

        return self._call("executions", effect)

    def approved_hashes(self, safe: str, safe_tx_hash: str, owners: Sequence[str], at: Block) -> frozenset[str]:
        def effect() -> frozenset[str]:
            approved = {one for mined in self._up_to(at) for one in mined.approved}
            return frozenset(owner for owner in owners if (safe, owner, safe_tx_hash) in approved)

        return self._call("approved_hashes", effect)

    def simulate(self, sender: str, to: str, data: str, at: Block) -> str | None:
        def effect() -> str | None:
            self._up_to(at)
            if bytes.fromhex(data[2:10]) not in (ADD_COMPOSE_HASH, ADD_DEVICE):
                return "unknown function"
            if to in self.reverts:
                return self.reverts[to]
            owned = self.owners.get(to)
            return None if owned is None or owned.owner == sender else f"OwnableUnauthorizedAccount({sender})"

        return self._call("simulate", effect)

    def _up_to(self, at: Block) -> list[_MinedBlock]:
        if at.number >= len(self._blocks) or self._blocks[at.number].block != at:
            raise StateUnavailable(f"no state at block {at.number}")
        return self._blocks[: at.number + 1]
