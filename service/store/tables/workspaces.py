"""Tenants."""

from datetime import datetime

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, LargeBinary, func, text
from sqlalchemy.orm import Mapped, mapped_column

from service.domain.gates import CommitPolicy
from service.domain.workspaces import POLICY_SCOPES
from service.store.columns import Base, one_of


class Workspace(Base):
    """A tenant.

    ``blocked_reason`` has the operator's words while the operator blocks it. Up to the place ``forgotten_*`` in the
    feed, events may have been deleted.
    """

    __tablename__ = "workspaces"

    id: Mapped[str] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str | None]
    phala_base_url: Mapped[str]
    phala_api_key_sealed: Mapped[bytes]
    phala_api_key_set_at: Mapped[datetime] = mapped_column(server_default=func.now())
    phala_webhook_secrets_sealed: Mapped[list[bytes]] = mapped_column(ARRAY(LargeBinary), server_default=text("'{}'"))
    phala_webhook_secrets_set_at: Mapped[datetime | None]
    allow_without_approval: Mapped[bool] = mapped_column(server_default=text("false"))
    submit_scope: Mapped[str] = mapped_column(server_default=text("'submit'"))
    cancel_scope: Mapped[str] = mapped_column(server_default=text("'submit'"))
    release_scope: Mapped[str] = mapped_column(server_default=text("'manage'"))
    cancel_own_only: Mapped[bool] = mapped_column(server_default=text("false"))
    deadline_seconds: Mapped[int] = mapped_column(server_default=text("2592000"))
    run_deadline_seconds: Mapped[int] = mapped_column(server_default=text("3600"))
    commit_policy: Mapped[str] = mapped_column(server_default=text("'auto'"))
    parallel_commits: Mapped[int] = mapped_column(server_default=text("1"))
    commits_frozen_at: Mapped[datetime | None]
    commits_frozen_by: Mapped[str | None]
    commits_frozen_reason: Mapped[str | None]
    event_retention_days: Mapped[int | None] = mapped_column(server_default=text("365"))
    delivery_retention_days: Mapped[int | None] = mapped_column(server_default=text("90"))
    forgotten_transaction_id: Mapped[int] = mapped_column(server_default=text("0"))
    forgotten_position: Mapped[int] = mapped_column(server_default=text("0"))
    blocked_reason: Mapped[str | None]
    blocked_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("deadline_seconds > 0", name="deadline"),
        CheckConstraint("run_deadline_seconds > 0", name="run_deadline"),
        CheckConstraint(one_of("commit_policy", CommitPolicy), name="commit_policy"),
        CheckConstraint("parallel_commits > 0", name="parallel_commits"),
        CheckConstraint(
            "num_nulls(commits_frozen_at, commits_frozen_by, commits_frozen_reason) IN (0, 3)", name="freeze"
        ),
        CheckConstraint(one_of("submit_scope", POLICY_SCOPES), name="submit_scope"),
        CheckConstraint(one_of("cancel_scope", POLICY_SCOPES), name="cancel_scope"),
        CheckConstraint(one_of("release_scope", POLICY_SCOPES), name="release_scope"),
        CheckConstraint("event_retention_days > 0", name="event_retention"),
        CheckConstraint("delivery_retention_days > 0", name="delivery_retention"),
        CheckConstraint("(blocked_reason IS NULL) = (blocked_at IS NULL)", name="blocked_since"),
    )


class WorkspaceFault(Base):
    """Something outside that keeps a workspace's requests waiting, as it was found; see ``service.store.standing``."""

    __tablename__ = "workspace_faults"

    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]
    detail: Mapped[str]
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RegisteredSafe(Base):
    """A Safe that a workspace may propose to."""

    __tablename__ = "safes"

    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    chain_id: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ExternalApp(Base):
    """An app contract whose owner is no Safe: its approval happens elsewhere."""

    __tablename__ = "external_apps"

    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    chain_id: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
