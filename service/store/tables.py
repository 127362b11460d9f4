"""The tables. PostgreSQL only; ``migrations/`` builds the same, and a test holds the two together.

Every row belongs to a workspace, directly or through its parent. Live rows have ``due_at`` (when the sweep rings for
them), ``lease_until`` and ``fence`` (who may write them now). Hashes are ``0x``-prefixed lower-case hex, addresses
checksummed. Columns ending in ``_sealed`` hold ciphertext of ``service.store.sealing``.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from service.domain.chain import FactKind
from service.domain.snapshots import (
    LIVE_PROPOSAL,
    LIVE_SAFE_TRANSACTION,
    Intake,
    ProposalState,
    SafeTransactionKind,
    SafeTransactionState,
)
from service.domain.states import HOLDS_CVM, TERMINAL, State
from service.store.columns import Base, Leased


def _one_of(column: str, values: frozenset[Any] | type[Any]) -> str:
    return f"{column} IN ({', '.join(sorted(repr(str(value)) for value in values))})"


_TERMINAL = _one_of("state", TERMINAL)
_LIVE_PROPOSAL = _one_of("state", LIVE_PROPOSAL)
_SERVED_PROPOSAL = _one_of("state", LIVE_PROPOSAL - {ProposalState.EXTERNAL})
_LIVE_APPROVAL = f"kind = 'approval' AND {_one_of('state', LIVE_SAFE_TRANSACTION)}"
_AFTER_PREPARE = _one_of("state", frozenset({State.PREPARED, State.PROPOSED, State.EXECUTED, State.REGISTERED}))
_ON_CHAIN = _one_of("state", frozenset({State.EXECUTED, State.REGISTERED}))


class Workspace(Base):
    """A tenant."""

    __tablename__ = "workspaces"

    id: Mapped[str] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(unique=True)
    phala_base_url: Mapped[str]
    phala_api_key_sealed: Mapped[bytes]
    allow_without_approval: Mapped[bool] = mapped_column(server_default=text("false"))
    deadline_seconds: Mapped[int] = mapped_column(server_default=text("2592000"))
    run_deadline_seconds: Mapped[int] = mapped_column(server_default=text("3600"))
    blocked_reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("deadline_seconds > 0", name="deadline"),
        CheckConstraint("run_deadline_seconds > 0", name="run_deadline"),
    )


class RegisteredSafe(Base):
    """A Safe that a workspace may propose to."""

    __tablename__ = "safes"

    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    chain_id: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(primary_key=True)


class ExternalApp(Base):
    """An app contract whose owner is no Safe: its approval happens elsewhere."""

    __tablename__ = "external_apps"

    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    chain_id: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(primary_key=True)


class Proposal(Leased, Base):
    """An approval that change requests share: one live row per identity."""

    __tablename__ = "proposals"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    state: Mapped[str]
    chain_id: Mapped[int]
    app_contract: Mapped[str]
    compose_hash: Mapped[str]
    devices: Mapped[list[str]]
    safe: Mapped[str | None]
    detail: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    __table_args__ = (
        CheckConstraint(_one_of("state", ProposalState), name="state"),
        CheckConstraint(f"({_SERVED_PROPOSAL}) = (due_at IS NOT NULL)", name="served_is_due"),
        CheckConstraint("state <> 'external' OR safe IS NULL", name="external_has_no_safe"),
        CheckConstraint(f"NOT ({_SERVED_PROPOSAL}) OR safe IS NOT NULL", name="served_has_safe"),
        Index(
            "uq_proposals_live_identity",
            "workspace_id",
            "chain_id",
            "app_contract",
            "compose_hash",
            "devices",
            unique=True,
            postgresql_where=text(_LIVE_PROPOSAL),
        ),
        Index("ix_proposals_workspace_id", "workspace_id"),
        Index("ix_proposals_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    )


class SafeTransaction(Base):
    """A Safe transaction of ours under a proposal; ``position`` tells the newest, whatever a worker's clock says."""

    __tablename__ = "safe_transactions"

    id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(Identity(), unique=True)
    proposal_id: Mapped[str] = mapped_column(ForeignKey("proposals.id"))
    kind: Mapped[str]
    state: Mapped[str]
    chain_id: Mapped[int]
    safe: Mapped[str]
    nonce: Mapped[int]
    to: Mapped[str]
    data: Mapped[str]
    operation: Mapped[int]
    safe_tx_hash: Mapped[str]
    confirmations: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    threshold: Mapped[int | None]
    transaction_hash: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    __table_args__ = (
        CheckConstraint(_one_of("kind", SafeTransactionKind), name="kind"),
        CheckConstraint(_one_of("state", SafeTransactionState), name="state"),
        CheckConstraint("operation IN (0, 1)", name="operation"),
        CheckConstraint("nonce >= 0", name="nonce"),
        Index("ix_safe_transactions_proposal_id", "proposal_id"),
        Index(
            "uq_safe_transactions_live_approval",
            "chain_id",
            "safe",
            "nonce",
            unique=True,
            postgresql_where=text(_LIVE_APPROVAL),
        ),
        Index(
            "uq_safe_transactions_live_approval_of_proposal",
            "proposal_id",
            unique=True,
            postgresql_where=text(_LIVE_APPROVAL),
        ),
        Index("ix_safe_transactions_safe_tx_hash", "safe_tx_hash"),
    )


class ChangeRequest(Leased, Base):
    """A change of one CVM on its way."""

    __tablename__ = "change_requests"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    state: Mapped[str]
    version: Mapped[int] = mapped_column(server_default=text("0"))
    state_entered_at: Mapped[datetime]
    intake: Mapped[str]
    cvm_id: Mapped[str]
    title: Mapped[str | None]
    patch: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    allow_without_approval: Mapped[bool] = mapped_column(server_default=text("false"))
    warnings: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))

    vm_uuid: Mapped[str | None]
    cvm_name: Mapped[str | None]
    chain_id: Mapped[int | None]
    app_contract: Mapped[str | None]
    device_id: Mapped[str | None]
    compose_hash: Mapped[str | None]
    commit_token_sealed: Mapped[bytes | None]
    commit_token_fingerprint: Mapped[bytes | None] = mapped_column(unique=True)
    token_expires_at: Mapped[datetime | None]
    prepare_attempted_at: Mapped[datetime | None]
    prepared_at: Mapped[datetime | None]

    proposal_id: Mapped[str | None] = mapped_column(ForeignKey("proposals.id"))
    approvals_seen: Mapped[int] = mapped_column(server_default=text("0"))
    transaction_hash: Mapped[str | None]
    evidence_block_hash: Mapped[str | None]
    evidence_block_number: Mapped[int | None]

    commit_attempt_id: Mapped[str | None]
    commit_attempted_at: Mapped[datetime | None]
    commit_refused_since: Mapped[datetime | None]
    correlation_id: Mapped[str | None]
    running_evidence: Mapped[str | None]

    reason: Mapped[str | None]
    detail: Mapped[str | None]
    cancel_requested_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime]
    last_event_seq: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint(_one_of("state", State), name="state"),
        CheckConstraint(_one_of("intake", Intake), name="intake"),
        CheckConstraint(f"({_TERMINAL}) = (due_at IS NULL)", name="live_is_due"),
        CheckConstraint("intake <> 'patch' OR patch IS NOT NULL", name="patch"),
        CheckConstraint(
            f"NOT ({_AFTER_PREPARE}) OR (vm_uuid IS NOT NULL AND chain_id IS NOT NULL AND app_contract IS NOT NULL"
            " AND device_id IS NOT NULL AND compose_hash IS NOT NULL AND commit_token_sealed IS NOT NULL)",
            name="prepared_holds_hash_and_token",
        ),
        CheckConstraint("state <> 'proposed' OR proposal_id IS NOT NULL", name="proposed_has_proposal"),
        CheckConstraint(f"NOT ({_ON_CHAIN}) OR evidence_block_hash IS NOT NULL", name="on_chain_has_evidence"),
        # Applied at once by a prepare: no commit was tried, and nobody told a hash.
        CheckConstraint(
            "state <> 'committed' OR compose_hash IS NOT NULL OR commit_attempted_at IS NULL", name="committed_has_hash"
        ),
        CheckConstraint("state <> 'committed' OR correlation_id IS NOT NULL", name="committed_has_correlation_id"),
        CheckConstraint("state <> 'failed' OR reason IS NOT NULL", name="failed_has_reason"),
        CheckConstraint(
            "commit_token_sealed IS NULL OR commit_token_fingerprint IS NOT NULL", name="token_has_fingerprint"
        ),
        CheckConstraint(f"NOT ({_TERMINAL}) OR commit_token_sealed IS NULL", name="ended_holds_no_token"),
        CheckConstraint("state <> 'committed' OR commit_token_sealed IS NULL", name="committed_holds_no_token"),
        CheckConstraint("compose_hash IS NULL OR compose_hash ~ '^0x[0-9a-f]{64}$'", name="compose_hash"),
        CheckConstraint("device_id IS NULL OR device_id ~ '^0x[0-9a-f]{64}$'", name="device_id"),
        Index(
            "uq_change_requests_live_cvm",
            "workspace_id",
            "vm_uuid",
            unique=True,
            postgresql_where=text(_one_of("state", HOLDS_CVM)),
        ),
        Index("ix_change_requests_workspace_id", "workspace_id", "id"),
        Index("ix_change_requests_proposal_id", "proposal_id"),
        Index("ix_change_requests_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        Index(
            "ix_change_requests_awaiting",
            "chain_id",
            "app_contract",
            postgresql_where=text(_AFTER_PREPARE),
        ),
        Index(
            "ix_change_requests_becoming_final",
            "chain_id",
            "evidence_block_number",
            postgresql_where=text("state = 'executed'"),
        ),
    )


class ChainFact(Base):
    """A log of a watched app contract; ``orphaned_at`` says when its block was found to have vanished."""

    __tablename__ = "chain_facts"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    chain_id: Mapped[int]
    app_contract: Mapped[str]
    kind: Mapped[str]
    value: Mapped[str]
    transaction_hash: Mapped[str]
    block_hash: Mapped[str]
    block_number: Mapped[int]
    log_index: Mapped[int]
    orphaned_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint(_one_of("kind", FactKind), name="kind"),
        UniqueConstraint("chain_id", "transaction_hash", "block_hash", "log_index"),
        Index("ix_chain_facts_value", "chain_id", "app_contract", "value"),
        Index("ix_chain_facts_block_number", "chain_id", "block_number"),
    )


class ChainCursor(Leased, Base):
    """How far a chain was read: everything up to this final block."""

    __tablename__ = "chain_cursors"

    chain_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    block_number: Mapped[int | None]
    block_hash: Mapped[str | None]
    head_number: Mapped[int | None]
    final_number: Mapped[int | None]
    detail: Mapped[str | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


class Event(Base):
    """What happened to a change request; append-only. ``body`` is the exact text that webhooks carry."""

    __tablename__ = "events"

    position: Mapped[int] = mapped_column(Identity(), primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    change_request_id: Mapped[str] = mapped_column(ForeignKey("change_requests.id"))
    seq: Mapped[int]
    type: Mapped[str]
    state: Mapped[str]
    body: Mapped[str]
    created_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("change_request_id", "seq"),
        Index("ix_events_workspace_id", "workspace_id", "position"),
    )


class WebhookEndpoint(Base):
    """Where a workspace wants its events."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    url: Mapped[str]
    secret_sealed: Mapped[bytes]
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (UniqueConstraint("workspace_id", "url"),)


class WebhookDelivery(Leased, Base):
    """One event on its way to one endpoint; ``attempts`` counts the tries."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(ForeignKey("events.id"))
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id"))
    state: Mapped[str] = mapped_column(server_default=text("'pending'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    delivered_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="state"),
        CheckConstraint("(state = 'pending') = (due_at IS NOT NULL)", name="pending_is_due"),
        UniqueConstraint("event_id", "endpoint_id"),
        Index("ix_webhook_deliveries_endpoint_id", "endpoint_id"),
        Index("ix_webhook_deliveries_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    )


class WebhookAttempt(Base):
    """One try of a delivery, and what the receiver answered (clipped)."""

    __tablename__ = "webhook_attempts"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    delivery_id: Mapped[str] = mapped_column(ForeignKey("webhook_deliveries.id"))
    attempted_at: Mapped[datetime]
    duration_ms: Mapped[int]
    status: Mapped[int | None]
    detail: Mapped[str | None]

    __table_args__ = (Index("ix_webhook_attempts_delivery_id", "delivery_id"),)


class Heartbeat(Base):
    """When a long-running process last said that it is alive."""

    __tablename__ = "heartbeats"

    process: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    seen_at: Mapped[datetime]
