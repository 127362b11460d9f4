"""What a step answers: the store turns it into one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypedDict

from service.domain.alerts import Alert
from service.domain.prepares import Verdict
from service.domain.reasons import Reason
from service.domain.signatures import SignatureKind
from service.domain.snapshots import ProposalState, SafeSeen, SafeTransactionState
from service.domain.states import State


class Notice(StrEnum):
    """Events beside the state changes, sent as ``change_request.<notice>``."""

    CANCEL_REQUESTED = "cancel_requested"
    REFRESH_REQUESTED = "refresh_requested"
    APPROVAL_ADDED = "approval_added"
    THRESHOLD_REACHED = "threshold_reached"
    EXPIRING = "expiring"
    TOKEN_REFRESHED = "token_refreshed"  # noqa: S105 - an event name, no secret
    REORGED = "reorged"
    ALERT = "alert"


Notices = tuple[tuple[Notice, Mapping[str, object]], ...]
"""Events, each with what else is in its ``data``, in order."""


class Facts(TypedDict, total=False):
    """Columns of a change request that steps may write, in their stored form.

    Hashes are ``0x``-prefixed lower-case bytes32, addresses checksummed. ``commit_token`` is the plain token; the store
    encrypts it. ``None`` erases.
    """

    vm_uuid: str
    cvm_name: str
    chain_id: int
    app_contract: str
    device_id: str
    compose_hash: str
    commit_token: str | None
    token_expires_at: datetime | None
    prepare_attempted_at: datetime | None
    prepared_at: datetime
    refresh_requested_at: datetime | None
    refresh_attempted_at: datetime | None
    refresh_due_at: datetime | None
    refresh_attempts: int
    refresh_reason: str | None
    refresh_detail: str | None
    token_told: int | None
    deadline_told: int
    other_hash_since: datetime | None
    transaction_hash: str | None
    evidence_block_hash: str | None
    evidence_block_number: int | None
    commit_attempt_id: str | None
    commit_attempted_at: datetime
    commit_refused_since: datetime | None
    correlation_id: str | None
    running_evidence: str
    approvals_seen: int
    alerts_seen: int
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class News:
    """What happened to a change request without changing its state.

    Attributes:
        heard: verdicts on heard prepares, by their ids.
    """

    facts: Facts = field(default_factory=Facts)
    notices: Notices = ()
    heard: Mapping[str, Verdict] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Advance:
    """Go to another state along an edge of the table."""

    to: State
    facts: Facts = field(default_factory=Facts)
    reason: Reason | None = None
    detail: str | None = None
    notices: Notices = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """Stay, and look again after ``seconds`` (or earlier when a doorbell rings)."""

    seconds: float
    reason: Reason
    detail: str | None = None
    facts: Facts = field(default_factory=Facts)
    notices: Notices = ()
    failed_attempt: bool = False
    """Counts towards the back-off and the attempts shown to people."""


Outcome = Advance | Wait


def stop(to: State, reason: Reason, detail: str | None = None, facts: Facts | None = None) -> Advance:
    """End in a terminal state with a reason."""
    return Advance(to, facts=facts or Facts(), reason=reason, detail=detail)


@dataclass(frozen=True, slots=True)
class ProposalOutcome:
    """What a step on a proposal answers.

    Attributes:
        state: the proposal's state from now on; may be the one it has.
        wait_seconds: when to look again, 0 for at once, ``None`` when nothing is left to do.
        detail: one line for people; ``None`` erases an earlier one.
        transaction_state: new state of the approval transaction, ``None`` leaves it.
        rejection_state: the same for the rejection transaction.
        transaction_hash: ``0x``-prefixed hash of the transaction that executed the approval, ``None`` leaves it.
        signatures: checksummed current owners whose signatures over the approval were verified, in the order of the
            Safe, and how they signed; ``None`` leaves them.
        contract_signatures: current owners with a contract's signature that was not; ``None`` leaves them.
        threshold: the Safe's threshold beside them, ``None`` leaves it.
        scan_from: no block below it can hold the execution of the approval's nonce; ``None`` leaves it.
        alerts: what its members are to be told, added to what the proposal has.
        safe_seen: the Safe as it was seen, ``None`` leaves it.
        news_at: when something about it changed, ``None`` leaves it.
        queue_due_at: when to ask the Safe's queue again, ``None`` leaves it.
        delegate_checked_at: when the delegates were asked for, ``None`` leaves it.
        failed_attempt: counts towards the back-off and the attempts shown to people; ``None`` leaves the count.
        fault: public code of what failed, ``None`` when nothing did.
    """

    state: ProposalState
    wait_seconds: float | None
    detail: str | None = None
    transaction_state: SafeTransactionState | None = None
    rejection_state: SafeTransactionState | None = None
    transaction_hash: str | None = None
    signatures: Mapping[str, SignatureKind] | None = None
    contract_signatures: tuple[str, ...] | None = None
    threshold: int | None = None
    scan_from: int | None = None
    alerts: tuple[Alert, ...] = ()
    safe_seen: SafeSeen | None = None
    news_at: datetime | None = None
    queue_due_at: datetime | None = None
    delegate_checked_at: datetime | None = None
    failed_attempt: bool | None = False
    fault: Reason | None = None
