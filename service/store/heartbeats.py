"""Signs of life of long-running processes."""

from sqlalchemy import delete, func, text
from sqlalchemy.dialects.postgresql import insert

from service.domain.readiness import QUEUE_PREFIX
from service.store.database import Database
from service.store.tables import Heartbeat

_FORGOTTEN_AFTER = text("interval '1 day'")


def beat(database: Database, process: str, kind: str) -> None:
    """Say that ``process`` (host and pid, say) of a ``kind`` such as ``worker`` is alive now."""
    statement = insert(Heartbeat).values(process=process, kind=kind, seen_at=func.now())
    with database.transaction() as session:
        forgotten = Heartbeat.seen_at < func.now() - _FORGOTTEN_AFTER, Heartbeat.kind.not_like(f"{QUEUE_PREFIX}%")
        session.execute(delete(Heartbeat).where(*forgotten))
        session.execute(
            statement.on_conflict_do_update(index_elements=["process"], set_={"kind": kind, "seen_at": func.now()})
        )


def served(database: Database, queue: str) -> None:
    """Say that a message went through ``queue`` now. One row per queue, kept however old: silence must be seen."""
    beat(database, f"{QUEUE_PREFIX}{queue}", f"{QUEUE_PREFIX}{queue}")
