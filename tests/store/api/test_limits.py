"""How much one key may ask: in a minute, over all processes, and at once."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from service.api.limits import Concurrency
from service.api.problems import TOO_MANY_AT_ONCE, Problem
from service.domain.api_keys import Scope, mint
from service.domain.states import State
from service.domain.token_bucket import Quota
from service.store import rate_buckets
from service.store.database import Database
from service.wiring import ApiLimits, ApiParts
from tests.support import members, rows
from tests.support.routes import problem
from tests.support.served_api import Api, serving
from tests.support.threads import in_background, together, wait_until

PATH = "/v1/change-requests"


@contextmanager
def _limited(parts: ApiParts, limits: ApiLimits) -> Iterator[Api]:
    with serving(replace(parts, limits=limits)) as api:
        yield api


@pytest.mark.usefixtures("workspaces")
class TestRate:
    def test_every_answer_tells_what_is_left(self, parts: ApiParts):
        with _limited(parts, ApiLimits(per_minute=600)) as api:
            answers = [api.acme.get(PATH), api.acme.get("/v1/api-keys/key_none"), api.acme.post(PATH, content=b"{")]
        for number, answer in enumerate(answers, 1):
            assert answer.headers["ratelimit-policy"] == '"key";q=600;w=60'
            left = re.fullmatch(r'"key";r=(\d+);t=\d+', answer.headers["ratelimit"])
            assert left, answer.headers
            assert 600 - number <= int(left[1]) <= 600

    @pytest.mark.fault("clients", "A client floods the API", "429 with `Retry-After`", "up to a minute")
    def test_a_key_that_used_up_its_minute_is_told_when_to_come_again(self, parts: ApiParts):
        with _limited(parts, ApiLimits(per_minute=5)) as api:
            answers = [api.acme.get(PATH) for _ in range(6)]
            assert [answer.status_code for answer in answers] == [200] * 5 + [429]
            problem(answers[-1], 429, "rate_limited")
            assert 1 <= int(answers[-1].headers["retry-after"]) <= 12
            assert '"key";r=0;' in answers[-1].headers["ratelimit"]
            assert api.other.get(PATH).status_code == 200
            assert api.nobody.get("/healthz").status_code == 200

    def test_requests_with_a_small_scope_count_too(
        self, parts: ApiParts, database: Database, workspaces: dict[str, str]
    ):
        rows.api_key(database, workspaces["acme"], key := mint(b"reader".ljust(32)), Scope.READ)
        with _limited(parts, ApiLimits(per_minute=2)) as api:
            headers = {"Authorization": f"Bearer {key}"}
            answers = [api.nobody.get("/v1/api-keys", headers=headers) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [403, 403, 429]

    def test_two_processes_have_one_quota(self, parts: ApiParts):
        limits = ApiLimits(per_minute=20)
        with _limited(parts, limits) as one, _limited(parts, limits) as other:
            statuses = [api.acme.get(PATH).status_code for _ in range(15) for api in (one, other)]
        assert 20 <= statuses.count(200) <= 22
        assert statuses.count(429) == 30 - statuses.count(200)

    @pytest.mark.fault(
        "broker", "Redis is away when a client calls", "the API, its limits included, asks PostgreSQL only", "no delay"
    )
    def test_redis_is_not_asked(self, parts: ApiParts, monkeypatch: pytest.MonkeyPatch):
        """The limits live in the database: where the API answers at all, they hold."""
        monkeypatch.setenv("COUNTERSIGN_REDIS_URL", "redis://127.0.0.1:1/0")
        with _limited(parts, ApiLimits(per_minute=1)) as api:
            assert [api.acme.get(PATH).status_code for _ in range(2)] == [200, 429]


def test_many_processes_draw_no_more_than_there_is(database: Database, workspace: str):
    key_id = rows.api_key(database, workspace, "key")
    draws = together([lambda: rate_buckets.draw(database, key_id, Quota(100)).taken] * 30)
    assert 100 <= sum(draws) <= 105


def test_a_key_has_so_many_waits_and_its_other_requests_go_on(
    parts: ApiParts, database: Database, workspaces: dict[str, str]
):
    request_id = rows.change_request(database, workspaces["acme"])
    path = f"{PATH}/{request_id}"
    with _limited(parts, ApiLimits(waits_at_once=1)) as api:
        with in_background(lambda: api.acme.get(f"{path}?wait=30")) as waiting:
            wait_until(lambda: bool(api.app.state.waiting.changes._waiting), "the first one waits")
            refusal = api.acme.get(f"{path}?wait=30")
            problem(refusal, 429, "too_many_at_once")
            assert int(refusal.headers["retry-after"]) > 0
            assert api.acme.get(path).status_code == 200
            members.move(database, request_id, State.RECEIVED, State.FAILED)
            assert waiting.result(40).status_code == 200
        assert api.acme.get(f"{path}?wait=1").status_code == 200


def test_slots_are_given_back_whatever_becomes_of_the_request():
    slots = Concurrency(ApiLimits(at_once=2))
    for _ in range(3):
        with suppress(ZeroDivisionError), slots.slot("one", waits=False), slots.slot("one", waits=False):
            with slots.slot("other", waits=False), slots.slot("one", waits=True):
                pass
            with pytest.raises(Problem) as refusal, slots.slot("one", waits=False):
                pass
            assert refusal.value.kind is TOO_MANY_AT_ONCE
            raise ZeroDivisionError
