"""Long-running processes."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from service.store.columns import Base


class Heartbeat(Base):
    """When a long-running process last said that it is alive."""

    __tablename__ = "heartbeats"

    process: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    seen_at: Mapped[datetime]
