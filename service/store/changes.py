"""Waiting for a change request to leave a state: one listening connection per process, however many wait."""

import logging
import threading
import time
from collections import defaultdict
from types import TracebackType
from typing import Final, Self

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import select

from service.store.database import CONNECTION, Database
from service.store.tables import ChangeRequest
from service.store.transitions import STATE_CHANNEL

_LISTEN_SECONDS: Final = 0.1
_RECONNECT_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


class StateChanges:
    """Hears of state changes while its context lasts, and wakes who waits for them.

    Notifications only ring: who waits reads the row itself, on being rung for and every few seconds besides, so that
    a lost connection delays an answer and never loses it.
    """

    def __init__(self, database: Database, *, recheck_seconds: float = 5.0) -> None:
        """Take the database, and how often a wait looks without being rung for."""
        self._database = database
        self._recheck_seconds = recheck_seconds
        self._waiting: defaultdict[str, set[threading.Event]] = defaultdict(set)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="state-changes", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._thread.join()

    def close(self) -> None:
        """End all waits, now and from now on."""
        self._stop.set()
        self._ring_all()

    def wait(self, request_id: str, *, from_state: str, seconds: float) -> None:
        """Return when the change request is not in ``from_state`` (any more), or after ``seconds``."""
        deadline = time.monotonic() + seconds
        bell = threading.Event()
        with self._lock:
            self._waiting[request_id].add(bell)
        try:
            while not self._stop.is_set() and self._state(request_id) == from_state:
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                bell.wait(min(left, self._recheck_seconds))
                bell.clear()
        finally:
            self._forget(request_id, bell)

    def _state(self, request_id: str) -> str | None:
        with self._database.transaction() as session:
            return session.scalar(select(ChangeRequest.state).where(ChangeRequest.id == request_id))

    def _forget(self, request_id: str, bell: threading.Event) -> None:
        with self._lock:
            bells = self._waiting[request_id]
            bells.discard(bell)
            if not bells:
                del self._waiting[request_id]

    def _run(self) -> None:
        url = self._database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        conninfo = make_conninfo(url, **CONNECTION)
        while not self._stop.is_set():
            try:
                with psycopg.connect(conninfo, autocommit=True) as connection:
                    self._listen(connection)
            except psycopg.Error as error:
                log.warning("not listening to state changes: %s", error.sqlstate or type(error).__name__)
                self._stop.wait(_RECONNECT_SECONDS)

    def _listen(self, connection: psycopg.Connection) -> None:
        connection.execute(f"LISTEN {STATE_CHANNEL}")
        self._ring_all()  # what changed while nobody listened
        while not self._stop.is_set():
            for notify in connection.notifies(timeout=_LISTEN_SECONDS):
                self._ring(notify.payload)

    def _ring(self, request_id: str) -> None:
        with self._lock:
            for bell in self._waiting.get(request_id, ()):
                bell.set()

    def _ring_all(self) -> None:
        with self._lock:
            for bells in self._waiting.values():
                for bell in bells:
                    bell.set()
