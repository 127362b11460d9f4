"""``Idempotency-Key`` on POST, as Stripe has it."""

import logging
import threading
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx
import pytest

from service.api.examples import SUBMIT_PATCH, SUBMIT_PREPARED
from service.domain.states import State
from service.store.database import Database
from service.wiring import ApiParts
from tests.support import members, rows
from tests.support.fakes import FixedClock
from tests.support.routes import problem
from tests.support.served_api import Api, serving
from tests.support.threads import in_background, together

PATH = "/v1/change-requests"
KEY = {"Idempotency-Key": "deploy 1.4.2 of my-agent"}


def _submit(api: Api, body: dict[str, Any] = SUBMIT_PATCH) -> httpx.Response:
    return api.acme.post(PATH, json=body, headers=KEY)


def _count(api: Api) -> int:
    return len(api.acme.get(PATH).json()["items"])


def _same(first: httpx.Response, retry: httpx.Response) -> None:
    assert (retry.status_code, retry.content) == (first.status_code, first.content)
    assert retry.headers.get("location") == first.headers.get("location")
    assert retry.headers["content-type"] == first.headers["content-type"]
    assert "idempotent-replayed" not in first.headers
    assert retry.headers["idempotent-replayed"] == "true"
    assert retry.headers["x-request-id"] != first.headers["x-request-id"]


@pytest.mark.fault(
    "clients", "The answer to a submission is lost, the client sends it again", "the first answer, one request", "24 h"
)
def test_a_retry_gets_the_first_answer_and_stores_nothing(api: Api):
    first, retry = _submit(api), _submit(api)
    assert first.status_code == 202
    assert first.headers["location"]
    _same(first, retry)
    assert _count(api) == 1


def test_the_answer_is_that_of_without_a_key(api: Api):
    with_key = _submit(api)
    without = api.acme.post(PATH, json=SUBMIT_PATCH)
    assert with_key.json().keys() == without.json().keys()
    assert with_key.headers.keys() - {"date"} == without.headers.keys() - {"date"}


def test_the_answer_stays_though_the_request_moved_on(api: Api, database: Database):
    first = _submit(api)
    members.move(database, first.json()["id"], State.RECEIVED, State.FAILED)
    _same(first, _submit(api))


def test_another_body_or_path_is_refused(api: Api):
    first = _submit(api)
    problem(_submit(api, {**SUBMIT_PATCH, "title": "another"}), 422, "idempotency_mismatch")
    problem(api.acme.post(f"{PATH}/{first.json()['id']}/cancel", headers=KEY), 422, "idempotency_mismatch")
    _same(first, _submit(api))
    assert _count(api) == 1


def test_other_workspaces_have_other_keys(api: Api):
    ours = _submit(api)
    theirs = api.other.post(PATH, json={**SUBMIT_PATCH, "title": "theirs"}, headers=KEY)
    assert theirs.status_code == 202
    assert theirs.json()["id"] != ours.json()["id"]


def test_a_refusal_of_the_work_is_kept(api: Api):
    assert api.acme.post(PATH, json=SUBMIT_PREPARED).status_code == 202
    first = _submit(api, SUBMIT_PREPARED)
    problem(first, 409, "token_already_submitted")
    _same(first, _submit(api, SUBMIT_PREPARED))


def test_what_was_refused_before_the_work_is_not_kept(api: Api):
    problem(_submit(api, {"cvm_id": "a"}), 422, "invalid_request")
    malformed = api.acme.post(PATH, content=b"{", headers={**KEY, "Content-Type": "application/json"})
    problem(malformed, 400, "malformed_json")
    problem(api.nobody.post(PATH, json=SUBMIT_PATCH, headers=KEY), 401, "unauthorized")
    assert _submit(api).status_code == 202


def test_a_cancel_may_be_repeated(api: Api, database: Database, workspaces: dict[str, str]):
    path = f"{PATH}/{rows.change_request(database, workspaces['acme'], State.RECEIVED)}/cancel"
    first, retry = (api.acme.post(path, headers=KEY) for _ in range(2))
    assert first.status_code == 202
    _same(first, retry)


class _WaitingClock(FixedClock):
    def __init__(self) -> None:
        super().__init__(rows.NOW)
        self.asked, self.go_on = threading.Event(), threading.Event()

    def now(self) -> datetime:
        self.asked.set()
        assert self.go_on.wait(20)
        return super().now()


def test_while_the_first_runs_a_retry_is_told_to_come_again(parts: ApiParts, workspaces: dict[str, str]):
    assert workspaces
    clock = _WaitingClock()
    with serving(replace(parts, clock=clock)) as api, in_background(lambda: _submit(api)) as first:
        assert clock.asked.wait(20)
        early = _submit(api)
        clock.go_on.set()
        problem(early, 409, "idempotency_in_progress")
        assert int(early.headers["retry-after"]) > 0
        _same(first.result(20), _submit(api))


@pytest.mark.fault(
    "clients",
    "A client sends the same many times at once",
    "one is stored, the others get its answer or 409",
    "no delay",
)
def test_of_many_at_once_one_is_stored(api: Api):
    answers = together([lambda: _submit(api)] * 12)
    stored = [answer for answer in answers if answer.status_code == 202]
    assert len({answer.content for answer in stored}) == 1
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert _count(api) == 1


class _BrokenClock(FixedClock):
    def now(self) -> datetime:
        raise RuntimeError("a defect")


@pytest.mark.usefixtures("workspaces")
def test_a_failure_is_kept_and_logged_once(parts: ApiParts, caplog: pytest.LogCaptureFixture):
    with serving(replace(parts, clock=_BrokenClock())) as api, caplog.at_level(logging.ERROR, "service.api"):
        first, retry = _submit(api), _submit(api)
    problem(first, 500, "internal_error")
    assert retry.status_code == 500
    assert retry.headers["idempotent-replayed"] == "true"
    assert retry.json()["request_id"] == first.json()["request_id"]
    assert len([record for record in caplog.records if record.name.startswith("service.api")]) == 1
