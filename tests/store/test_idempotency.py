"""Answers kept for retries: the work is done once, whoever races and whatever fails."""

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import cast

import pytest
from celery import Celery
from sqlalchemy import func, select, text, update

from service.store import idempotency
from service.store.database import Database
from service.store.idempotency import KEPT, Answer, Attempt, InProgress, Mismatch
from service.store.tables import ApiKey, IdempotentAnswer
from service.wiring import WorkerParts
from tests.support import rows
from tests.support.threads import in_background, together
from workers.tasks import Doorbell, sweep_once

KEY = "5f0c1f6d"


def _attempt(workspace: str, key: str = KEY, request: bytes = b"a") -> Attempt:
    return Attempt(workspace, key, request.ljust(32))


def _storing(workspace: str) -> Callable[[Database], Answer]:
    """Work that leaves a row behind."""

    def work(database: Database) -> Answer:
        number = rows.api_key(database, workspace, os.urandom(8).hex())
        return Answer(201, {"location": f"/{number}"}, f'{{"id": "{number}"}}')

    return work


def _never(_: Database) -> Answer:
    raise AssertionError("the work was done twice")


def _stored(database: Database) -> int:
    with database.transaction() as session:
        return session.scalars(select(func.count()).select_from(ApiKey)).one()


def _age(database: Database, age: timedelta) -> None:
    with database.transaction() as session:
        session.execute(update(IdempotentAnswer).values(created_at=func.now() - age))


def test_a_retry_gets_the_answer_of_the_first_request(database: Database, workspace: str):
    first = idempotency.once(database, _attempt(workspace), _storing(workspace))
    retry = idempotency.once(database, _attempt(workspace), _never)
    assert not first.replayed
    assert retry.replayed
    assert (retry.status, retry.headers, retry.body) == (first.status, first.headers, first.body)
    assert _stored(database) == 1


def test_another_request_with_the_key_is_refused_and_changes_nothing(database: Database, workspace: str):
    idempotency.once(database, _attempt(workspace), _storing(workspace))
    with pytest.raises(Mismatch):
        idempotency.once(database, _attempt(workspace, request=b"b"), _never)
    assert idempotency.once(database, _attempt(workspace), _never).replayed


def test_each_workspace_has_keys_of_its_own(database: Database, workspace: str):
    other = rows.workspace(database, "other")
    idempotency.once(database, _attempt(workspace), _storing(workspace))
    assert not idempotency.once(database, _attempt(other, request=b"b"), _storing(other)).replayed


def test_while_the_first_request_works_a_retry_is_told_so(database: Database, workspace: str):
    working, go_on = threading.Event(), threading.Event()

    def slowly(inside: Database) -> Answer:
        working.set()
        assert go_on.wait(20)
        return _storing(workspace)(inside)

    with in_background(lambda: idempotency.once(database, _attempt(workspace), slowly)) as first:
        assert working.wait(20)
        for request in (b"a", b"b"):
            with pytest.raises(InProgress):
                idempotency.once(database, _attempt(workspace, request=request), _never)
        assert not idempotency.once(database, _attempt(workspace, key="another"), _storing(workspace)).replayed
        go_on.set()
        assert first.result(20).status == 201
    assert idempotency.once(database, _attempt(workspace), _never).replayed


def _outcome(database: Database, attempt: Attempt, work: Callable[[Database], Answer]) -> str:
    try:
        return "replayed" if idempotency.once(database, attempt, work).replayed else "done"
    except InProgress:
        return "in progress"


@pytest.mark.parametrize("round_", range(5))
def test_of_many_at_once_one_does_the_work(database: Database, workspace: str, round_: int):
    attempt = _attempt(workspace, key=f"round {round_}")
    outcomes = together([lambda: _outcome(database, attempt, _storing(workspace))] * 12)
    assert outcomes.count("done") == 1
    assert _stored(database) == 1
    assert idempotency.once(database, attempt, _never).replayed


@pytest.mark.parametrize("round_", range(5))
def test_of_many_at_once_whose_work_is_refused_by_the_database_one_answers(
    database: Database, workspace: str, round_: int
):
    """A refusal by the database undoes the transaction and gives up the lock, before the answer is kept."""
    rows.api_key(database, workspace, "taken")

    def refused(inside: Database) -> Answer:
        with pytest.raises(Exception, match="uq_api_keys_digest"):
            rows.api_key(inside, workspace, "taken")
        return Answer(409, {}, "{}")

    attempt = _attempt(workspace, key=f"round {round_}")
    outcomes = together([lambda: _outcome(database, attempt, refused)] * 12)
    assert outcomes.count("done") == 1
    assert idempotency.once(database, attempt, _never).status == 409
    assert _stored(database) == 1


def test_what_the_work_raises_undoes_it_and_nothing_is_kept(database: Database, workspace: str):
    def fail(inside: Database) -> Answer:
        _storing(workspace)(inside)
        raise ConnectionError("the network is gone")

    with pytest.raises(ConnectionError):
        idempotency.once(database, _attempt(workspace), fail)
    assert _stored(database) == 0
    assert not idempotency.once(database, _attempt(workspace), _storing(workspace)).replayed


def test_a_refusal_after_a_part_of_the_work_keeps_the_refusal_only(database: Database, workspace: str):
    def refuse(inside: Database) -> Answer:
        rows.api_key(inside, workspace, "one")
        with pytest.raises(Exception, match="uq_api_keys_digest"):
            rows.api_key(inside, workspace, "one")
        return Answer(409, {}, "{}")

    idempotency.once(database, _attempt(workspace), refuse)
    assert _stored(database) == 0
    assert idempotency.once(database, _attempt(workspace), _never).status == 409


@pytest.mark.fault(
    "clients",
    "The API dies at work on an idempotent request",
    "nothing is stored, the key is free",
    "as soon as PostgreSQL sees it gone",
)
def test_a_process_that_dies_at_work_gives_the_key_back(database: Database, workspace: str):
    def die(inside: Database) -> Answer:
        with inside.transaction() as session:
            pid = session.scalar(text("SELECT pg_backend_pid()"))
        with database.transaction() as session:
            session.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
        return _storing(workspace)(inside)

    with pytest.raises(Exception, match="terminat"):
        idempotency.once(database, _attempt(workspace), die)
    assert not idempotency.once(database, _attempt(workspace), _storing(workspace)).replayed


def test_answers_are_sealed(database: Database, workspace: str):
    idempotency.once(database, _attempt(workspace), lambda _: Answer(201, {}, "csk_secret"))
    with database.transaction() as session:
        sealed = session.scalars(select(IdempotentAnswer.answer_sealed)).one()
    assert b"csk_secret" not in sealed


def test_answers_are_kept_for_a_day_at_least(database: Database, workspace: str):
    idempotency.once(database, _attempt(workspace), _storing(workspace))
    _age(database, KEPT - timedelta(minutes=1))
    assert idempotency.forget_old(database) == 0
    assert idempotency.once(database, _attempt(workspace), _never).replayed
    _age(database, KEPT + timedelta(seconds=1))
    assert idempotency.forget_old(database) == 1
    assert timedelta(hours=24) <= KEPT


def test_the_sweep_forgets_what_is_old(database: Database, workspace: str):
    idempotency.once(database, _attempt(workspace), lambda _: Answer(202, {}, "{}"))
    _age(database, KEPT + timedelta(seconds=1))
    parts = cast("WorkerParts", SimpleNamespace(database=database))
    sweep_once(parts, Doorbell(Celery(broker="memory://")))
    with database.transaction() as session:
        assert session.scalars(select(func.count()).select_from(IdempotentAnswer)).one() == 0
