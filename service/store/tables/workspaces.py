"""Tenants."""

from datetime import datetime

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, LargeBinary, func, text
from sqlalchemy.orm import Mapped, mapped_column

from service.domain.gates import CommitPolicy
from service.store.columns import Base, one_of


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
    commit_policy: Mapped[str] = mapped_column(server_default=text("'auto'"))
    parallel_commits: Mapped[int] = mapped_column(server_default=text("1"))
    commits_frozen_at: Mapped[datetime | None]
    commits_frozen_by: Mapped[str | None]
    commits_frozen_reason: Mapped[str | None]
    blocked_reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("deadline_seconds > 0", name="deadline"),
        CheckConstraint("run_deadline_seconds > 0", name="run_deadline"),
        CheckConstraint(one_of("commit_policy", CommitPolicy), name="commit_policy"),
        CheckConstraint("parallel_commits > 0", name="parallel_commits"),
        CheckConstraint(
            "num_nulls(commits_frozen_at, commits_frozen_by, commits_frozen_reason) IN (0, 3)", name="freeze"
        ),
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
