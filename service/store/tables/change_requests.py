"""Change requests."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from service.domain.snapshots import (
    Intake,
)
from service.domain.states import HOLDS_CVM, TERMINAL, State
from service.store.columns import Base, Leased, one_of

_TERMINAL = one_of("state", TERMINAL)
_AFTER_PREPARE = one_of("state", frozenset({State.PREPARED, State.PROPOSED, State.EXECUTED, State.REGISTERED}))
_ON_CHAIN = one_of("state", frozenset({State.EXECUTED, State.REGISTERED}))


class ChangeRequest(Leased, Base):
    """A change of one CVM on its way.

    ``last_chained_seq`` and ``last_event_hash`` are of the last event that has a hash: the last of all, but where a
    version without hashes wrote after it.
    """

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
    refresh_requested_at: Mapped[datetime | None]
    refresh_attempted_at: Mapped[datetime | None]
    refresh_due_at: Mapped[datetime | None]
    refresh_attempts: Mapped[int] = mapped_column(server_default=text("0"))
    refresh_reason: Mapped[str | None]
    refresh_detail: Mapped[str | None]
    token_told: Mapped[int | None]
    deadline_told: Mapped[int | None]

    proposal_id: Mapped[str | None] = mapped_column(ForeignKey("proposals.id"))
    approvals_seen: Mapped[int] = mapped_column(server_default=text("0"))
    alerts_seen: Mapped[int] = mapped_column(server_default=text("0"))
    transaction_hash: Mapped[str | None]
    evidence_block_hash: Mapped[str | None]
    evidence_block_number: Mapped[int | None]

    commit_attempt_id: Mapped[str | None]
    commit_attempted_at: Mapped[datetime | None]
    commit_refused_since: Mapped[datetime | None]
    correlation_id: Mapped[str | None]
    running_evidence: Mapped[str | None]
    other_hash_since: Mapped[datetime | None]

    reason: Mapped[str | None]
    detail: Mapped[str | None]
    cancel_requested_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime]
    last_event_seq: Mapped[int] = mapped_column(server_default=text("0"))
    last_chained_seq: Mapped[int] = mapped_column(server_default=text("0"))
    last_event_hash: Mapped[str | None]
    events_deleted_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint(one_of("state", State), name="state"),
        CheckConstraint(one_of("intake", Intake), name="intake"),
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
            postgresql_where=text(one_of("state", HOLDS_CVM)),
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
