"""Bearer API keys: who speaks, and whether the key's scope is enough."""

import logging
import queue
import threading
import time
from types import TracebackType
from typing import Final, Self

from service.api.problems import INSUFFICIENT_SCOPE, UNAUTHORIZED, Problem
from service.domain.api_keys import Scope, is_well_formed
from service.store import api_keys
from service.store.api_keys import Holder
from service.store.database import Database
from service.store.health import UNAVAILABLE

_REALM: Final = 'Bearer realm="countersign"'
_NOTED_EVERY: Final = 60.0

log = logging.getLogger(__name__)


def authenticate(database: Database, authorization: str | None) -> Holder:
    """Who holds the key in the ``Authorization`` header. A typing error costs no look into the database.

    Raises:
        Problem: ``unauthorized``.
    """
    if not authorization:
        raise Problem(UNAUTHORIZED, UNAUTHORIZED.remedy, headers={"WWW-Authenticate": _REALM})
    scheme, _, presented = authorization.partition(" ")
    key = presented.strip()
    holder = api_keys.find(database, key) if scheme.lower() == "bearer" and is_well_formed(key) else None
    if holder is None:
        challenge = {"WWW-Authenticate": f'{_REALM}, error="invalid_token"'}
        raise Problem(UNAUTHORIZED, "The API key is not known, was revoked, or has expired.", headers=challenge)
    return holder


def require(holder: Holder, scope: Scope) -> None:
    """Refuse a key that may not do what ``scope`` allows.

    Raises:
        Problem: ``insufficient_scope``.
    """
    if not holder.scope.includes(scope):
        raise Problem(
            INSUFFICIENT_SCOPE,
            f"This needs a key of scope {scope.value}; this one has {holder.scope.value}.",
            headers={"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{scope.value}"'},
        )


class LastUses:
    """Notes when keys were used, at most once a minute each, in a thread of its own: no request waits for it."""

    def __init__(self, database: Database) -> None:
        """Take where to note it."""
        self._database = database
        self._noted: dict[str, float] = {}
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="last-uses", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.put(None)
        self._thread.join()

    def note(self, key_id: str) -> None:
        """A key was used now."""
        now = time.monotonic()
        if now - self._noted.get(key_id, -_NOTED_EVERY) >= _NOTED_EVERY:
            self._noted[key_id] = now
            self._waiting.put(key_id)

    def _run(self) -> None:
        while (key_id := self._waiting.get()) is not None:
            try:
                api_keys.used(self._database, key_id)
            except UNAVAILABLE as error:
                log.warning("the use of an API key is not noted: %s", type(error).__name__, extra={"key_id": key_id})
