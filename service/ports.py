"""The outside world as the steps need it. Adapters implement these; fakes of the tests do too.

Every method raises only the errors of ``service.domain.errors``.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pydantic import SecretStr

from service.domain.approver import Approver
from service.domain.chain import Allowed, AppOwnership, Block, ChainFact, ChainView, SafeExecution, SafeState
from service.domain.outcomes import Facts, News
from service.domain.phala_facts import (
    AppliedAtOnce,
    Cvm,
    Hook,
    HookDelivery,
    Operation,
    PendingUpdate,
    Prepared,
    Running,
)
from service.domain.prepares import Hearing
from service.domain.recovery import Asked
from service.domain.snapshots import Proposal, SafeTransaction


class Clock(Protocol):
    """Time."""

    def now(self) -> datetime:
        """The current time, aware, UTC."""


class Phala(Protocol):
    """Phala Cloud with the key of one workspace."""

    def cvm(self, cvm_id: str) -> Cvm:
        """Resolve an identifier in any form Phala Cloud knows."""

    def prepare(self, vm_uuid: str, patch: Mapping[str, Any]) -> Prepared | AppliedAtOnce:
        """PATCH with ``X-Prepare-Only``; kills the CVM's earlier token."""

    def commit(self, vm_uuid: str, token: SecretStr, compose_hash: str, transaction_hash: str) -> str:
        """Commit the prepared update; the correlation id. ``transaction_hash`` may be ``already-registered``."""

    def operations(self, vm_uuid: str, since: datetime) -> Sequence[Operation]:
        """Operations of the CVM that started at or after ``since``, newest first."""

    def running(self, vm_uuid: str) -> Running:
        """What runs, by attestation and by the CVM info."""

    def webhooks(self) -> Sequence[Hook]:
        """The workspace's webhooks there."""

    def hook_deliveries(self, hook_id: str, since: datetime) -> Sequence[HookDelivery]:
        """What was sent to a webhook at or after ``since``, by Phala Cloud's clock."""

    def resend(self, hook_id: str, event_id: str) -> None:
        """Have an event sent again, under a new id."""

    def pending_updates(self, app_contract: str) -> Sequence[PendingUpdate]:
        """Updates of an app's CVMs that were prepared and not applied; none of an app that is not known there."""


@dataclass(frozen=True, slots=True)
class QueuedTransaction:
    """A Safe transaction as the Transaction Service tells it; signatures are not verified yet.

    Attributes:
        confirmations: (claimed owner, signature as ``0x`` hex) in order of creation.
    """

    safe_tx_hash: str
    nonce: int
    to: str
    data: str
    is_executed: bool
    is_successful: bool | None
    transaction_hash: str | None
    confirmations: tuple[tuple[str, str], ...]


class SafeQueue(Protocol):
    """The Safe Transaction Service of one chain."""

    def pending(self, safe: str, chain_nonce: int) -> Sequence[QueuedTransaction]:
        """Everything queued at ``chain_nonce`` or above, in one request mostly."""

    def delegators(self, safe: str, delegate: str) -> frozenset[str]:
        """Checksummed addresses that made ``delegate`` their delegate, for this Safe or for all of theirs."""

    def post(self, transaction: SafeTransaction, signature: str, sender: str, origin: str) -> None:
        """Propose; the same again changes nothing."""

    def get(self, safe: str, safe_tx_hash: str) -> QueuedTransaction | None:
        """One transaction of a Safe, ``None`` when the service does not know it."""

    def at_nonce(self, safe: str, nonce: int) -> Sequence[QueuedTransaction]:
        """All transactions of a Safe at one nonce."""

    def delete(self, safe: str, safe_tx_hash: str) -> None:
        """Delete an unexecuted proposal of ours from the queue; deleting a missing one is no error."""


class Signer(Protocol):
    """The service's own key, a delegate of the Safes."""

    @property
    def address(self) -> str:
        """Checksummed address."""

    def sign(self, safe_tx_hash: str) -> str:
        """65-byte ECDSA signature (r, s, v 27/28) as ``0x`` hex."""


class Chain(Protocol):
    """One EVM chain. Reads that decide are pinned to a block hash."""

    @property
    def chain_id(self) -> int:
        """EIP-155 chain id."""

    def view(self, also: int | None = None, logs_above: int | None = None) -> ChainView:
        """Head and final block, by the chain's finality setting.

        The block at one more height comes for the same price, and mostly what ``facts`` tells from above a height up
        to the head.
        """

    def block(self, number: int) -> Block | None:
        """The canonical block at a height, ``None`` above the head."""

    def facts(self, first: int, last: int) -> Sequence[ChainFact]:
        """Every allowlist log between two heights, both included, of any contract."""

    def allowed_at(
        self, app_contract: str, compose_hash: str, device_id: str, blocks: Sequence[Block]
    ) -> Sequence[Allowed]:
        """``allowed`` at each of several blocks, for the price of one."""

    def allowed(self, app_contract: str, compose_hash: str, device_id: str, at: Block) -> Allowed:
        """Read the allowlist at one block."""

    def ownership(self, app_contract: str, at: Block) -> AppOwnership:
        """An app contract and who owns it."""

    def code_hash(self, address: str, at: Block) -> str | None:
        """``0x``-prefixed keccak-256 of the code at an address, ``None`` where there is none."""

    def safe(self, address: str, at: Block) -> SafeState | None:
        """A Safe with its owners, modules and guards, ``None`` where there is no Safe."""

    def executions(self, safe: str, first: int, last: int) -> Sequence[SafeExecution]:
        """What a Safe executed between two heights, both included, in order. An empty answer proves nothing."""

    def approved_hashes(self, safe: str, safe_tx_hash: str, owners: Sequence[str], at: Block) -> frozenset[str]:
        """Those of ``owners`` who approved a safeTxHash on chain."""

    def simulate(self, sender: str, to: str, data: str, at: Block) -> str | None:
        """Try a call; the revert reason in words, or ``None`` when it would succeed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a webhook receiver answered, clipped."""

    status: int
    excerpt: str
    retry_after: float | None


class Poster(Protocol):
    """Sends webhooks."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """POST the bytes; redirects are answers, not followed.

        Raises:
            Unreachable: no answer came.
        """


class RequestIntents(Protocol):
    """Stores what makes a repeat harmless before the call is made."""

    def record(self, facts: Facts, *, commits: bool = False) -> None:
        """Commit facts of the leased change request now.

        Args:
            facts: what to store.
            commits: the call that follows changes the CVM: it must not be made once a gate before it is closed.

        Raises:
            LeaseLost: another worker took over, or a gate is closed; the call must not be made.
        """

    def publish(self, news: News, now: datetime) -> None:
        """Commit facts of the leased change request, events about them, and verdicts on heard prepares, now.

        Raises:
            LeaseLost: as above.
        """

    def heard(self) -> Hearing:
        """What Phala Cloud told of prepares of the request's CVM, as it is known now."""

    def join_proposal(self, devices: tuple[str, ...], safe: str | None, approver: Approver | None = None) -> Proposal:
        """Join the live proposal of the request's identity, or make one.

        Args:
            devices: bytes32 ids that must be allowed beside the hash.
            safe: the Safe that owns the app contract, ``None`` for an external approval.
            approver: who has to approve, as just read, to be shown; ``None`` leaves what is known.

        Raises:
            LeaseLost: as above.
        """


class ProposalIntents(Protocol):
    """The same for a leased proposal."""

    def claim_nonce(
        self, chain_nonce: int, occupied: Collection[int] = (), scan_from: int | None = None
    ) -> SafeTransaction:
        """Store the intent of an approval at the lowest free nonce.

        Args:
            chain_nonce: the Safe's next nonce on chain; nothing below it is free.
            occupied: nonces in the Safe's queue.
            scan_from: no block below it can hold the execution of a nonce that is free now.
        """

    def knows(self, safe_tx_hash: str) -> bool:
        """Whether a Safe transaction of ours is stored, of whatever proposal and in whatever state."""

    def intend_rejection(self, nonce: int) -> SafeTransaction:
        """Store the intent of a rejection at a nonce."""


class RecoveryIntents(Protocol):
    """What is known here of what Phala Cloud tells, and what was asked for."""

    def heard(self, event_ids: Sequence[str]) -> Collection[str]:
        """Those of the events that arrived."""

    def asked(self) -> Mapping[str, Asked]:
        """What was asked for already, by the id it was sent with first."""

    def asking(self, event_id: str, now: datetime) -> None:
        """Store that an event is asked for, before it is.

        Raises:
            LeaseLost: another worker took over; nothing may be asked for.
        """

    def unknown(self, updates: Sequence[PendingUpdate]) -> Sequence[PendingUpdate]:
        """Those that no change request and no heard prepare is about."""
