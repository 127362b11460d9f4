"""What came in from Phala Cloud, and every commit token that was ever held."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from service.domain.prepares import DECIDED
from service.store.columns import Base, one_of


class CommitToken(Base):
    """A commit token that a change request holds or held, by its fingerprint: how an echo is recognised."""

    __tablename__ = "commit_tokens"

    fingerprint: Mapped[bytes] = mapped_column(primary_key=True)
    change_request_id: Mapped[str] = mapped_column(ForeignKey("change_requests.id"))

    __table_args__ = (Index("ix_commit_tokens_change_request_id", "change_request_id"),)


class InboundEvent(Base):
    """A prepare that Phala Cloud told by webhook; ``change_request_id`` is whom it was decided for.

    Times are those of Phala Cloud's clock but ``received_at`` and ``decided_at``.
    """

    __tablename__ = "inbound_events"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    event_id: Mapped[str]
    vm_uuid: Mapped[str]
    cvm_name: Mapped[str | None]
    chain_id: Mapped[int]
    app_contract: Mapped[str]
    device_id: Mapped[str]
    compose_hash: Mapped[str]
    token_fingerprint: Mapped[bytes]
    token_sealed: Mapped[bytes | None]
    expires_at: Mapped[datetime]
    received_at: Mapped[datetime]
    origin: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    verdict: Mapped[str | None]
    decided_at: Mapped[datetime | None]
    change_request_id: Mapped[str | None] = mapped_column(ForeignKey("change_requests.id"))

    __table_args__ = (
        CheckConstraint(one_of("verdict", DECIDED), name="verdict"),
        CheckConstraint("(verdict IS NULL) = (token_sealed IS NOT NULL)", name="decided_holds_no_token"),
        CheckConstraint("(verdict IS NULL) = (decided_at IS NULL)", name="decided_has_time"),
        UniqueConstraint("workspace_id", "event_id"),
        UniqueConstraint("workspace_id", "token_fingerprint"),
        Index("ix_inbound_events_vm_uuid", "workspace_id", "vm_uuid"),
        Index("ix_inbound_events_undecided", "workspace_id", "vm_uuid", postgresql_where=text("verdict IS NULL")),
        Index("ix_inbound_events_change_request_id", "change_request_id"),
    )
