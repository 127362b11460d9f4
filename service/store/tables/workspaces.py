"""Tenants."""

from datetime import datetime

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, LargeBinary, func, text
from sqlalchemy.orm import Mapped, mapped_column

from service.store.columns import Base


class Workspace(Base):
    """A tenant."""

    __tablename__ = "workspaces"

    id: Mapped[str] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(unique=True)
    phala_base_url: Mapped[str]
    phala_api_key_sealed: Mapped[bytes]
    phala_webhook_secrets_sealed: Mapped[list[bytes]] = mapped_column(ARRAY(LargeBinary), server_default=text("'{}'"))
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
