"""Who may call the API, how often, and what was answered."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, or_
from sqlalchemy.orm import Mapped, column_property, mapped_column

from service.domain.api_keys import Scope
from service.store.columns import Base, one_of


class ApiKey(Base):
    """A key of a workspace, of which only the SHA-256 is kept. ``hint``: how it begins. ``replaces``: the id before."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    digest: Mapped[bytes] = mapped_column(unique=True)
    hint: Mapped[str]
    name: Mapped[str]
    scope: Mapped[str]
    created_by: Mapped[str]
    replaces: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None] = mapped_column()
    revoked_at: Mapped[datetime | None] = mapped_column()
    last_used_at: Mapped[datetime | None]
    works: Mapped[bool] = column_property(revoked_at.is_(None) & or_(expires_at.is_(None), expires_at > func.now()))

    __table_args__ = (
        CheckConstraint(one_of("scope", Scope), name="scope"),
        CheckConstraint("length(digest) = 32", name="digest"),
        Index("ix_api_keys_workspace_id", "workspace_id"),
    )


class RateBucket(Base):
    """Requests that a key has left. Unlogged: a crash of the database fills the buckets, which hurts nobody."""

    __tablename__ = "rate_buckets"

    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"), primary_key=True)
    tokens: Mapped[float]
    looked_at: Mapped[datetime]

    __table_args__ = ({"prefixes": ["UNLOGGED"]},)


class IdempotentAnswer(Base):
    """The answer to the first request with an ``Idempotency-Key``, sealed, because some answers hold secrets."""

    __tablename__ = "idempotent_answers"

    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes]
    status: Mapped[int]
    answer_sealed: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_idempotent_answers_created_at", "created_at"),)
