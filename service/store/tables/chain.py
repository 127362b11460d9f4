"""What was read from the chains, and how far."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Identity, Index, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from service.domain.chain import FactKind
from service.store.columns import Base, Leased, one_of


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
        CheckConstraint(one_of("kind", FactKind), name="kind"),
        UniqueConstraint("chain_id", "transaction_hash", "block_hash", "log_index"),
        Index("ix_chain_facts_value", "chain_id", "app_contract", "value"),
        Index("ix_chain_facts_block_number", "chain_id", "block_number"),
    )


class ChainCursor(Leased, Base):
    """How far a chain was read.

    ``block_*`` is a block that was final, everything up to ``read_to`` was read while it was final, ``gap`` is how many
    blocks there were to catch up with, if any.
    """

    __tablename__ = "chain_cursors"

    chain_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    block_number: Mapped[int | None]
    block_hash: Mapped[str | None]
    read_to: Mapped[int | None]
    gap: Mapped[int | None]
    head_number: Mapped[int | None]
    final_number: Mapped[int | None]
    looked_at: Mapped[datetime | None]
    detail: Mapped[str | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
