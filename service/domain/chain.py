"""Blocks, logs and what they prove. Pure.

Event topics of DstackApp: nothing is indexed, the value is the log's data.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from eth_utils.crypto import keccak


class FactKind(StrEnum):
    """What a log of an app contract says."""

    HASH_ADDED = "hash_added"
    HASH_REMOVED = "hash_removed"
    DEVICE_ADDED = "device_added"
    DEVICE_REMOVED = "device_removed"
    ANY_DEVICE_SET = "any_device_set"


TOPICS: Final[dict[str, FactKind]] = {
    "0x" + keccak(text=signature).hex(): kind
    for signature, kind in {
        "ComposeHashAdded(bytes32)": FactKind.HASH_ADDED,
        "ComposeHashRemoved(bytes32)": FactKind.HASH_REMOVED,
        "DeviceAdded(bytes32)": FactKind.DEVICE_ADDED,
        "DeviceRemoved(bytes32)": FactKind.DEVICE_REMOVED,
        "AllowAnyDeviceSet(bool)": FactKind.ANY_DEVICE_SET,
    }.items()
}


@dataclass(frozen=True, slots=True)
class Block:
    """A block by number and ``0x``-prefixed hash."""

    number: int
    hash: str


@dataclass(frozen=True, slots=True)
class ChainView:
    """The two blocks a decision rests on: the newest, and the newest that is final.

    Attributes:
        also: the canonical block at the height that was asked about besides, ``None`` when that is not known from here.
        facts: the allowlist logs up to the head from the height that was asked about on, in the order of the chain;
            ``None`` when they did not come with the rest.
    """

    head: Block
    final: Block
    also: Block | None = None
    facts: Sequence["ChainFact"] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ChainFact:
    """One log of an app contract.

    Attributes:
        app_contract: checksummed.
        value: ``0x``-prefixed 32 bytes: the hash, the device id, or the flag.
    """

    kind: FactKind
    app_contract: str
    value: str
    transaction_hash: str
    block: Block
    log_index: int


@dataclass(frozen=True, slots=True)
class Allowed:
    """Both halves of *allowed*, read at one block."""

    compose_hash: bool
    device: bool

    @property
    def both(self) -> bool:
        """Whether a CVM on that device may boot that hash."""
        return self.compose_hash and self.device


@dataclass(frozen=True, slots=True)
class SafeState:
    """A Safe as the chain has it. Addresses checksummed.

    Attributes:
        version: as the contract tells it: ``1.4.1``.
        singleton: the contract its proxy runs.
        l2: whether that is a known variant that emits events for everything it does (indexers need them where nodes
            serve no traces); ``None`` for a singleton nobody published.
        guard: the contract that may refuse every execution.
        modules: contracts that may act for the Safe without its owners; the first ones of the list.
        more_modules: whether the list goes on, or could not be read.
        module_guard: the contract that may refuse what modules do; Safe 1.5.0 and later.
    """

    address: str
    version: str
    owners: tuple[str, ...]
    threshold: int
    nonce: int
    singleton: str | None = None
    l2: bool | None = None
    guard: str | None = None
    modules: tuple[str, ...] = ()
    more_modules: bool = False
    module_guard: str | None = None


@dataclass(frozen=True, slots=True)
class SafeExecution:
    """One ``ExecutionSuccess`` or ``ExecutionFailure`` of a Safe: a transaction that used up a nonce.

    Attributes:
        safe_tx_hash: ``0x``-prefixed bytes32, lower case.
        success: whether its call succeeded.
        transaction_hash: the chain's transaction that executed it.
    """

    safe_tx_hash: str
    success: bool
    transaction_hash: str
    block: Block


def execution_at(executions: Sequence[SafeExecution], nonce: int, next_nonce: int) -> SafeExecution | None:
    """The execution that used ``nonce``, ``None`` when the logs do not reach back to it.

    Args:
        executions: of one Safe in the order of the chain, up to the block at which ``next_nonce`` was read.
        nonce: below ``next_nonce``.
        next_nonce: the Safe's nonce at that block. Each execution used one nonce, so counting from the end finds it.
    """
    back = next_nonce - nonce
    return executions[-back] if 0 < back <= len(executions) else None


@dataclass(frozen=True, slots=True)
class AppOwnership:
    """An app contract and who owns it. Addresses checksummed.

    Attributes:
        has_code: whether there is a contract at the address at all.
        owner: ``None`` where the contract does not tell one; the zero address once ownership was renounced.
        pending_owner: who may accept the ownership; only two-step contracts know one.
        is_app: whether it is a DstackApp: it says so, and its allowlist can be read.
        allows_any_device: whether every device may run what is allowed.
        requires_tcb_up_to_date: whether the KMS must refuse hosts whose TCB is not up to date; newer contracts only.
    """

    has_code: bool
    owner: str | None
    pending_owner: str | None
    is_app: bool = True
    allows_any_device: bool = False
    requires_tcb_up_to_date: bool = False


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a chain was scanned.

    Attributes:
        block: was final when it was noted; whether it still stands is looked at now and then.
        read_to: highest block whose logs were read while it was final, ``None`` when that is ``block`` itself.
        gap: final blocks that were to be read when catching up began, ``None`` when nothing is to be caught up.
    """

    block: Block
    read_to: int | None = None
    gap: int | None = None

    @property
    def read(self) -> int:
        """Number of the highest block whose logs were read while it was final."""
        return self.block.number if self.read_to is None else self.read_to


@dataclass(frozen=True, slots=True)
class Observation:
    """What one look at a chain brought.

    Attributes:
        cursor: store it together with ``facts``; it never lies above ``view.final``.
        facts: logs of any contract that were not known above the cursor's block.
        orphaned: known facts whose block is no longer canonical: keep them, but they prove nothing any more.
        behind: final blocks not scanned yet.
        detail: what was unusual, for the operator; ``None`` mostly.
        moved: whether the cursor could be moved. If so, and something is left behind, look again at once.
    """

    view: ChainView
    cursor: Cursor
    facts: tuple[ChainFact, ...]
    orphaned: tuple[ChainFact, ...]
    behind: int
    detail: str | None = None
    moved: bool = True
