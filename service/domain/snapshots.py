"""What a step sees: immutable copies of rows, with every secret wrapped. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import SecretStr

from service.domain.alerts import Alert
from service.domain.calls import SafeCall
from service.domain.chain import ChainFact
from service.domain.reasons import Reason
from service.domain.signatures import SignatureKind
from service.domain.states import State


class Intake(StrEnum):
    """How a change request entered."""

    PATCH = "patch"
    PREPARED = "prepared"
    WEBHOOK = "webhook"


HANDED_IN = frozenset({Intake.PREPARED, Intake.WEBHOOK})
"""Prepared by somebody else."""


class ProposalState(StrEnum):
    """State of a proposal; all but the last four are live."""

    POSTING = "posting"
    QUEUED = "queued"
    EXTERNAL = "external"
    WITHDRAWING = "withdrawing"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    FAILED = "failed"


LIVE_PROPOSAL = frozenset(
    {ProposalState.POSTING, ProposalState.QUEUED, ProposalState.EXTERNAL, ProposalState.WITHDRAWING}
)
JOINABLE_PROPOSAL = LIVE_PROPOSAL - {ProposalState.WITHDRAWING}


class SafeTransactionKind(StrEnum):
    """Whether a Safe transaction of ours approves or rejects."""

    APPROVAL = "approval"
    REJECTION = "rejection"


class SafeTransactionState(StrEnum):
    """State of a Safe transaction of ours; the first two are live."""

    INTENDED = "intended"
    QUEUED = "queued"
    EXECUTED = "executed"
    REPLACED = "replaced"
    DELETED = "deleted"


LIVE_SAFE_TRANSACTION = frozenset({SafeTransactionState.INTENDED, SafeTransactionState.QUEUED})


@dataclass(frozen=True, slots=True)
class WorkspacePolicy:
    """Settings of the tenant that decisions depend on.

    Attributes:
        safes: (chain id, checksummed address) of every registered Safe.
        external_apps: (chain id, checksummed address) of app contracts declared ``approval: external``.
        run_deadline_seconds: how long a committed update may take to run.
    """

    id: str
    allow_without_approval: bool
    run_deadline_seconds: int
    safes: frozenset[tuple[int, str]]
    external_apps: frozenset[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class SafeTransaction:
    """A Safe transaction of ours.

    Attributes:
        confirmations: checksummed current owners whose signatures were verified.
        signature_kinds: how each of them signed.
        contract_signatures: checksummed current owners under whom a contract's signature is listed, not verified.
        scan_from: no block below it can hold the execution of its nonce; ``None`` when that was never known.
    """

    id: str
    kind: SafeTransactionKind
    state: SafeTransactionState
    safe: str
    nonce: int
    call: SafeCall
    safe_tx_hash: str
    confirmations: tuple[str, ...]
    threshold: int | None
    transaction_hash: str | None
    signature_kinds: Mapping[str, SignatureKind] = field(default_factory=dict)
    contract_signatures: tuple[str, ...] = ()
    scan_from: int | None = None


@dataclass(frozen=True, slots=True)
class SafeSeen:
    """What the last look found of a Safe, to notice changes. Addresses checksummed.

    Attributes:
        guard: ``None`` for none.
        modules: ``None`` when not all of them are known.
    """

    owners: tuple[str, ...]
    threshold: int
    guard: str | None = None
    modules: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """An approval that one or more change requests wait for.

    Attributes:
        devices: bytes32 device ids that it allows beside the hash, sorted.
        safe: checksummed, ``None`` for an external approval.
        members: ids of the live change requests that joined it.
        former: ids of those that left it.
        fault: public code of what failed at the last step, ``None`` when nothing did.
        alerts: everything its members are or were to be told, oldest first.
        safe_seen: the Safe at the last look.
        news_at: when something about it changed last.
        queue_due_at: when the Safe's queue is to be asked next, ``None`` for now.
        delegate_checked_at: when it was asked last whether the service's key is a delegate.
        held_nonces: nonces of the same Safe that other live proposals of ours hold.
    """

    id: str
    workspace_id: str
    state: ProposalState
    chain_id: int
    app_contract: str
    compose_hash: str
    devices: tuple[str, ...]
    safe: str | None
    transaction: SafeTransaction | None
    rejection: SafeTransaction | None
    members: tuple[str, ...]
    attempts: int
    detail: str | None
    alerts: tuple[Alert, ...] = ()
    safe_seen: SafeSeen | None = None
    news_at: datetime | None = None
    queue_due_at: datetime | None = None
    delegate_checked_at: datetime | None = None
    held_nonces: frozenset[int] = frozenset()
    former: tuple[str, ...] = ()
    fault: Reason | None = None


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """A change request with what its steps decide on. Field names are those of the table.

    Attributes:
        proposal: what it joined, as long as it waits for the owners.
        facts: logs of its app contract that concern it, as long as its approval is not final.
        undecided_prepares: whether prepares of its CVM were heard of that nobody decided on.
    """

    id: str
    workspace: WorkspacePolicy
    state: State
    state_entered_at: datetime
    intake: Intake
    cvm_id: str
    patch: Mapping[str, Any] | None
    allow_without_approval: bool
    vm_uuid: str | None
    chain_id: int | None
    app_contract: str | None
    device_id: str | None
    compose_hash: str | None
    commit_token: SecretStr | None
    token_expires_at: datetime | None
    prepare_attempted_at: datetime | None
    prepared_at: datetime | None
    refresh_requested_at: datetime | None
    refresh_attempted_at: datetime | None
    refresh_due_at: datetime | None
    refresh_attempts: int
    token_told: int | None
    deadline_told: int | None
    other_hash_since: datetime | None
    transaction_hash: str | None
    evidence_block_hash: str | None
    evidence_block_number: int | None
    commit_attempt_id: str | None
    commit_attempted_at: datetime | None
    commit_refused_since: datetime | None
    correlation_id: str | None
    approvals_seen: int
    warnings: tuple[str, ...]
    cancel_requested_at: datetime | None
    created_at: datetime
    deadline_at: datetime
    attempts: int
    proposal: Proposal | None
    facts: tuple[ChainFact, ...]
    undecided_prepares: bool
    alerts_seen: int = 0
