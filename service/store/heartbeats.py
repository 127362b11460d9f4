"""Signs of life of long-running processes, and of what they listen to."""

import logging
import threading
import time
from typing import Final

from sqlalchemy import delete, func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from service.domain.readiness import QUEUE_PREFIX, SAFE_FAULT, SAFE_SERVICE, WATCH_PREFIX
from service.store.database import Database
from service.store.tables import Heartbeat

_FORGOTTEN_AFTER = text("interval '1 day'")
_FORGOTTEN: Final = (Heartbeat.kind.not_like(f"{QUEUE_PREFIX}%"), Heartbeat.kind.not_like(f"{WATCH_PREFIX}%"))
_SAME_SIGN_SECONDS: Final = 15.0

log = logging.getLogger(__name__)


def beat(database: Database, process: str, kind: str) -> None:
    """Say that ``process`` (host and pid, say) of a ``kind`` such as ``worker`` is alive now."""
    statement = insert(Heartbeat).values(process=process, kind=kind, seen_at=func.now())
    with database.transaction() as session:
        forgotten = Heartbeat.seen_at < func.now() - _FORGOTTEN_AFTER, *_FORGOTTEN
        session.execute(delete(Heartbeat).where(*forgotten))
        session.execute(
            statement.on_conflict_do_update(index_elements=["process"], set_={"kind": kind, "seen_at": func.now()})
        )


def served(database: Database, queue: str) -> None:
    """Say that a message went through ``queue`` now. One row per queue, kept however old: silence must be seen."""
    beat(database, f"{QUEUE_PREFIX}{queue}", f"{QUEUE_PREFIX}{queue}")


def listened(database: Database, chain_id: int) -> None:
    """Say that the listener heard of a chain now. One row per chain, kept likewise."""
    beat(database, f"{WATCH_PREFIX}{chain_id}", f"{WATCH_PREFIX}{chain_id}")


class SafeServiceSigns:
    """Keeps when the Transaction Service of a chain last answered a call, and when it last did not."""

    def __init__(self, database: Database, chain_id: int) -> None:
        """Take the chain it serves."""
        self._database = database
        self._chain_id = chain_id
        self._lock = threading.Lock()
        self._last: bool | None = None
        self._again_at = 0.0

    def told(self, answered: bool) -> None:
        """A call ended; news at once, the same again every 15 seconds. Never raises."""
        with self._lock:
            if answered is self._last and time.monotonic() < self._again_at:
                return
            self._last, self._again_at = answered, time.monotonic() + _SAME_SIGN_SECONDS
        kind = SAFE_SERVICE if answered else SAFE_FAULT
        try:
            beat(self._database, f"{kind}:{self._chain_id}", kind)
        except SQLAlchemyError:  # the call itself went as it went
            log.warning("a sign of the Transaction Service could not be stored", exc_info=True)
