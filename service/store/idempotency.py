"""Answers to requests with an ``Idempotency-Key``: the work and its answer are one transaction, or nothing.

While the first request works it holds an advisory lock on its key, which ends with the transaction whatever becomes of
the process: PostgreSQL ends the transaction of a lost connection at once, and that of a frozen process after 15 s.
"""

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pydantic import SecretStr
from sqlalchemy import delete, func, insert, select, text, tuple_

from service.store.database import Database
from service.store.tables import IdempotentAnswer

KEPT: Final = timedelta(hours=24)
_PURPOSE: Final = "idempotent_answer"
_BATCH: Final = 5_000
_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 2))")
_STORED = select(IdempotentAnswer.fingerprint, IdempotentAnswer.status, IdempotentAnswer.answer_sealed)


class InProgress(Exception):
    """The first request with this key has not been answered yet."""


class Mismatch(Exception):
    """The key was used for another request."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that may be a retry.

    Attributes:
        key: the ``Idempotency-Key``; each workspace has its own.
        fingerprint: of method, path and body.
    """

    workspace_id: str
    key: str
    fingerprint: bytes

    @property
    def row_id(self) -> str:
        """What the sealed answer is bound to."""
        return f"{self.workspace_id}/{self.key}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered. ``replayed`` tells a retry from the first time."""

    status: int
    headers: Mapping[str, str]
    body: str
    replayed: bool = False


def once(database: Database, attempt: Attempt, work: Callable[[Database], Answer]) -> Answer:
    """Do the work and keep its answer, or give the answer that was kept.

    Args:
        database: the database.
        attempt: the request.
        work: does everything on the database it is given, whose transactions are parts of this one. What it raises
            undoes all of it, and nothing is kept.

    Raises:
        InProgress, Mismatch: see there.
    """
    with database.engine.begin() as connection:
        if not connection.scalar(_LOCK, {"name": f"idempotency:{attempt.row_id}"}):
            raise InProgress
        stored = connection.execute(
            _STORED.where(IdempotentAnswer.workspace_id == attempt.workspace_id, IdempotentAnswer.key == attempt.key)
        ).one_or_none()
        if stored is not None:
            if not hmac.compare_digest(bytes(stored.fingerprint), attempt.fingerprint):
                raise Mismatch
            return _opened(database, attempt, stored.status, stored.answer_sealed)
        answer = work(database.within(connection))
        connection.execute(insert(IdempotentAnswer).values(**_values(database, attempt, answer)))
    return answer


def _values(database: Database, attempt: Attempt, answer: Answer) -> dict[str, object]:
    content = SecretStr(json.dumps([dict(answer.headers), answer.body], ensure_ascii=False))
    return {
        "workspace_id": attempt.workspace_id,
        "key": attempt.key,
        "fingerprint": attempt.fingerprint,
        "status": answer.status,
        "answer_sealed": database.sealer.seal(content, purpose=_PURPOSE, row_id=attempt.row_id),
    }


def _opened(database: Database, attempt: Attempt, status: int, sealed: bytes) -> Answer:
    content = database.sealer.open(sealed, purpose=_PURPOSE, row_id=attempt.row_id)
    headers, body = json.loads(content.get_secret_value())
    return Answer(status, headers, body, replayed=True)


def forget_old(database: Database) -> int:
    """Remove answers older than ``KEPT``, a bounded number of them; how many."""
    old = (
        select(IdempotentAnswer.workspace_id, IdempotentAnswer.key)
        .where(IdempotentAnswer.created_at < func.now() - KEPT)
        .limit(_BATCH)
    )
    statement = delete(IdempotentAnswer).where(tuple_(IdempotentAnswer.workspace_id, IdempotentAnswer.key).in_(old))
    with database.transaction() as session:
        return len(session.execute(statement.returning(IdempotentAnswer.key)).all())
