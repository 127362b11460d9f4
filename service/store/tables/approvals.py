"""Approvals that change requests share, and the Safe transactions under them."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from service.domain.snapshots import (
    LIVE_PROPOSAL,
    LIVE_SAFE_TRANSACTION,
    ProposalState,
    SafeTransactionKind,
    SafeTransactionState,
)
from service.store.columns import Base, Leased, one_of

_LIVE_PROPOSAL = one_of("state", LIVE_PROPOSAL)
_SERVED_PROPOSAL = one_of("state", LIVE_PROPOSAL - {ProposalState.EXTERNAL})
_MAY_BE_DUE = f"{_SERVED_PROPOSAL} OR (state = 'approved' AND safe IS NOT NULL)"
_LIVE_APPROVAL = f"kind = 'approval' AND {one_of('state', LIVE_SAFE_TRANSACTION)}"


class Proposal(Leased, Base):
    """An approval that change requests share: one live row per identity.

    An approved one is due as long as a Safe transaction of ours is left in the owners' queue.
    ``approver`` has what was read of the app contract's owner when a request last joined; it is shown, and decides
    nothing.
    """

    __tablename__ = "proposals"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    state: Mapped[str]
    chain_id: Mapped[int]
    app_contract: Mapped[str]
    compose_hash: Mapped[str]
    devices: Mapped[list[str]]
    safe: Mapped[str | None]
    approver: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    detail: Mapped[str | None]
    fault: Mapped[str | None]
    alerts: Mapped[list[dict[str, str]]] = mapped_column(JSONB, server_default=text("'[]'"))
    safe_seen: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    news_at: Mapped[datetime | None]
    queue_due_at: Mapped[datetime | None]
    delegate_checked_at: Mapped[datetime | None]
    approved_at_block: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    __table_args__ = (
        CheckConstraint(one_of("state", ProposalState), name="state"),
        CheckConstraint(f"NOT ({_SERVED_PROPOSAL}) OR due_at IS NOT NULL", name="served_is_due"),
        CheckConstraint(
            f"due_at IS NULL OR {_MAY_BE_DUE}",
            name="ended_is_not_due",
        ),
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
    signature_kinds: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    contract_signatures: Mapped[list[str]] = mapped_column(server_default=text("'{}'"))
    scan_from: Mapped[int | None]
    threshold: Mapped[int | None]
    transaction_hash: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    __table_args__ = (
        CheckConstraint(one_of("kind", SafeTransactionKind), name="kind"),
        CheckConstraint(one_of("state", SafeTransactionState), name="state"),
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
