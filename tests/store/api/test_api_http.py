"""What holds for every answer: ids, headers, size limits, problems instead of bare errors."""

import logging
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from urllib.parse import urlsplit

import pytest

from service.adapters.webhook_guard import WebhookGuard
from service.api.examples import SUBMIT_PATCH
from service.api.middleware import MAX_BODY_BYTES
from service.api.problems import PROBLEMS
from service.store.database import Database, make_engine
from service.wiring import ApiParts
from tests.support import rows
from tests.support.fakes import FixedClock
from tests.support.postgres import NewDatabase
from tests.support.routes import problem
from tests.support.served_api import Api, serving

PATH = "/v1/change-requests"
JSON = {"Content-Type": "application/json"}
UNKNOWN = f"{PATH}/cr_{'0' * 32}"


def test_a_chunked_body_is_bounded_too(idle_api: Api):
    def chunks() -> Iterator[bytes]:
        for _ in range(17):
            yield b" " * (MAX_BODY_BYTES // 16)

    problem(idle_api.acme.post(PATH, content=chunks(), headers=JSON), 413, "body_too_large")


def test_a_body_of_exactly_the_bound_is_read(idle_api: Api):
    content = b"{}".ljust(MAX_BODY_BYTES)
    problem(idle_api.acme.post(PATH, content=content, headers=JSON), 422, "invalid_request")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", f"{PATH}/", f"{UNKNOWN}/nothing", "/%00", "/redoc"])
def test_an_unknown_route_is_a_problem(idle_api: Api, path: str):
    problem(idle_api.acme.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", PATH, "GET, POST"),
        ("PUT", UNKNOWN, "GET"),
        ("GET", f"{UNKNOWN}/cancel", "POST"),
        ("PATCH", f"/v1/api-keys/key_{'0' * 32}", "DELETE, GET"),
    ],
)
def test_a_wrong_method_is_a_problem_that_names_the_right_ones(idle_api: Api, method: str, path: str, allowed: str):
    answer = idle_api.acme.request(method, path)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("request_id", ["x", "%00", "cr_%00", "cr_" + "g" * 32, "CR_" + "0" * 32, "a" * 5000, "%ff"])
def test_what_cannot_be_an_id_is_not_found(idle_api: Api, request_id: str):
    for path in ("", "/events"):
        problem(idle_api.acme.get(f"{PATH}/{request_id}{path}"), 404, "not_found")
    problem(idle_api.acme.post(f"{PATH}/{request_id}/cancel"), 404, "not_found")


def test_every_answer_has_an_id_of_its_own_and_is_not_kept(idle_api: Api):
    answers = [idle_api.acme.get(path) for path in ("/healthz", PATH, UNKNOWN, "/nothing", "/openapi.json", "/docs")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)
    assert {answer.headers["x-content-type-options"] for answer in answers} == {"nosniff"}
    assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}


def test_every_type_of_problem_has_its_page(idle_api: Api):
    for kind in PROBLEMS:
        page = idle_api.nobody.get(kind.uri)
        assert page.status_code == 200
        assert kind.slug in page.text
        assert kind.remedy in page.text
    problem(idle_api.nobody.get("/problems/none"), 404, "not_found")


class BrokenClock(FixedClock):
    def now(self) -> datetime:
        raise RuntimeError("the password is hunter2")


def test_a_failure_is_a_problem_that_tells_nothing_and_a_log_line_that_tells_all(
    parts: ApiParts, workspaces: dict[str, str], caplog: pytest.LogCaptureFixture
):
    assert workspaces
    with serving(replace(parts, clock=BrokenClock())) as api, caplog.at_level(logging.ERROR, "service.api"):
        answer = api.acme.post(PATH, json=SUBMIT_PATCH)
        body = problem(answer, 500, "internal_error")
    assert "hunter2" not in answer.text
    (record,) = [record for record in caplog.records if record.name.startswith("service.api")]
    assert vars(record)["request_id"] == body["request_id"]
    assert "hunter2" in str(record.exc_info)


def test_liveness_looks_at_nothing_and_readiness_at_the_database(idle_api: Api):
    assert idle_api.nobody.get("/healthz").json() == {"status": "ok"}
    assert idle_api.nobody.get("/readyz?scope=api").json() == {"status": "ready", "parts": {"database": "ok: migrated"}}


def api_parts(url: str) -> ApiParts:
    return ApiParts(Database(make_engine(url), rows.sealer()), FixedClock(), {}, WebhookGuard())


@pytest.mark.fault(
    "database",
    "PostgreSQL is away when a client calls",
    "503 `unavailable` with `Retry-After`; nothing is half stored",
    "until it is back",
)
def test_without_a_database_requests_may_come_again_later(postgres_url: str):
    with socket.socket() as closed:  # bound, and nobody listens
        closed.bind(("127.0.0.1", 0))
        url = urlsplit(postgres_url)._replace(netloc=f"nobody:hunter2@127.0.0.1:{closed.getsockname()[1]}").geturl()
        with serving(api_parts(url)) as api:
            assert api.nobody.get("/healthz").status_code == 200
            for answer in (api.nobody.get("/readyz"), api.acme.get(PATH), api.acme.post(PATH, json=SUBMIT_PATCH)):
                problem(answer, 503, "unavailable")
                assert int(answer.headers["retry-after"]) > 0
                assert "hunter2" not in answer.text


def test_a_database_without_tables_is_not_ready(empty_database: NewDatabase):
    with empty_database() as url:
        parts = api_parts(url)
        with serving(parts) as api:
            problem(api.nobody.get("/readyz"), 503, "not_migrated")
        parts.database.engine.dispose()
