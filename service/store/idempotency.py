"""Answers to requests with an ``Idempotency-Key``: the work and its answer are one transaction, or nothing.

While the first request works it holds an advisory lock on its key, which ends with the transaction whatever becomes of
the process: PostgreSQL ends the transaction of a lost connection at once, and that of a frozen process after 15 s.
"""

import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, cast

from psycopg.errors import UniqueViolation
from pydantic import SecretStr
from sqlalchemy import Table, delete, func, insert, select, tuple_
from sqlalchemy.exc import IntegrityError

from service.store.database import Database, Prepared, parameters_for, perform
from service.store.tables import IdempotentAnswer

KEPT: Final = timedelta(hours=24)
ANSWER: Final = "idempotent_answer"
"""What answers are sealed for."""
ANSWER_ID: Final = IdempotentAnswer.workspace_id + "/" + IdempotentAnswer.key
"""What each is bound to, as ``Attempt.row_id`` has it."""
_BATCH: Final = 5_000
_PRIMARY_KEY: Final = "pk_idempotent_answers"
_ANSWERS: Final = cast("Table", IdempotentAnswer.__table__)
_COLUMNS: Final = ("workspace_id", "key", "fingerprint", "status", "answer_sealed")
_KEEP: Final = Prepared.of(insert(_ANSWERS).values(parameters_for(_ANSWERS, _COLUMNS)).returning(_ANSWERS.c.key))
# One look for both: whoever gets the lock right after the first request ended, but looked before, is stopped by the
# primary key when it wants to keep its own answer.
_LOCK_AND_LOOK: Final = Prepared(
    """
    SELECT pg_try_advisory_xact_lock(hashtextextended(%(name)s, 2)), kept.fingerprint, kept.status, kept.answer_sealed
    FROM (VALUES (1)) AS one LEFT JOIN idempotent_answers AS kept
        ON kept.workspace_id = %(workspace_id)s AND kept.key = %(key)s
    """,
    {},
)


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
        work: does everything on the database it is given. What it raises undoes all of it, and nothing is kept. Where a
            transaction of its fails and it answers all the same, that answer is kept, and nothing else of the work.

    Raises:
        InProgress, Mismatch: see there.
    """
    try:
        with database.together() as inside:
            kept = _kept(database, inside, attempt)
            answer = kept or work(inside)
            if kept is None:
                _keep(database, inside, attempt, answer)
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation) and error.orig.diag.constraint_name == _PRIMARY_KEY:
            raise InProgress from error
        raise
    return answer


def _kept(database: Database, inside: Database, attempt: Attempt) -> Answer | None:
    name = f"idempotency:{attempt.row_id}"
    with inside.transaction() as session:
        ((free, fingerprint, status, sealed),) = perform(
            session, _LOCK_AND_LOOK, {"name": name, "workspace_id": attempt.workspace_id, "key": attempt.key}
        )
    if not free:
        raise InProgress
    if status is None:
        return None
    if not hmac.compare_digest(fingerprint, attempt.fingerprint):
        raise Mismatch
    content = database.sealer.open(sealed, purpose=ANSWER, row_id=attempt.row_id)
    headers, body = json.loads(content.get_secret_value())
    return Answer(status, headers, body, replayed=True)


def _keep(database: Database, inside: Database, attempt: Attempt, answer: Answer) -> None:
    content = SecretStr(json.dumps([dict(answer.headers), answer.body], ensure_ascii=False))
    values = {
        "workspace_id": attempt.workspace_id,
        "key": attempt.key,
        "fingerprint": attempt.fingerprint,
        "status": answer.status,
        "answer_sealed": database.sealer.seal(content, purpose=ANSWER, row_id=attempt.row_id),
    }
    with inside.transaction() as session:
        perform(session, _KEEP, values)


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
