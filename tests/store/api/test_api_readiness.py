"""Readiness: what stands still is named, quickly, without asking anybody outside."""

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from service.domain.readiness import Condition, judge
from service.settings import Settings
from service.store import heartbeats, observations
from service.store.database import Database
from tests.support import rows
from tests.support.served_api import Api
from workers.app import ROUND_TRIP_TASK, make_app
from workers.verbs import Verb


def _sql(database: Database, statement: str) -> None:
    with database.transaction() as session:
        session.execute(text(statement))


def test_readiness_names_what_stands_still_and_what_is_degraded_only(api: Api, database: Database):
    assert api.nobody.get("/readyz").json()["parts"]["workers"] == "degraded: no queue was ever served"
    for queue in ("commit", "track"):
        heartbeats.served(database, queue)
    observations.ensure_chains(database, [rows.CHAIN_ID])
    _sql(database, "UPDATE chain_cursors SET attempts = 3, due_at = now(), detail = 'https://u:hunter2@rpc'")
    answer = api.nobody.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")

    _sql(database, "UPDATE heartbeats SET seen_at = now() - interval '61 seconds' WHERE kind = 'queue:commit'")
    answer = api.nobody.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["type"].endswith("/problems/not_ready")
    detail = answer.json()["detail"]
    assert "Failing: queue:commit (last round trip 61 s ago)." in detail
    assert f"Degraded only: chain:{rows.CHAIN_ID} (the last 3 attempts failed)" in detail
    assert "track" not in detail
    assert "hunter2" not in answer.text
    assert api.nobody.get("/readyz?scope=api").status_code == 200


def test_a_queue_that_went_silent_long_ago_is_not_forgotten(api: Api, database: Database):
    heartbeats.served(database, "commit")
    _sql(database, "UPDATE heartbeats SET seen_at = now() - interval '3 days'")
    heartbeats.served(database, "track")
    assert api.nobody.get("/readyz").status_code == 503


@pytest.mark.fault(
    "broker",
    "A queue has no consumer any more",
    "`/readyz` answers 503 and names the queue",
    "60 s without a message, one goes through every 15 s",
)
def test_a_round_trip_goes_through_every_queue_in_time_to_find_a_stalled_one_within_90_seconds():
    app = make_app(Settings(redis_url=SecretStr("redis://127.0.0.1:1/0")))
    entries = [entry for entry in app.conf.beat_schedule.values() if entry["task"] == ROUND_TRIP_TASK]
    assert sorted(entry["options"]["queue"] for entry in entries) == sorted(Verb)
    assert all(entry["args"] == [entry["options"]["queue"]] for entry in entries)
    assert max(entry["schedule"] for entry in entries) + 60 < 90


@pytest.mark.parametrize(
    ("name", "age", "failed", "condition"),
    [
        ("queue:commit", 60, 0, Condition.OK),
        ("queue:commit", 60.1, 0, Condition.FAILING),
        ("worker", 61, 0, Condition.FAILING),
        ("chain:1", 61, 0, Condition.DEGRADED),
        ("chain:1", -5, 2, Condition.OK),
        ("chain:1", None, 0, Condition.OK),
        ("safe queue:1", 0, 3, Condition.DEGRADED),
    ],
)
def test_only_what_serves_everybody_fails_the_whole(name: str, age: float | None, failed: int, condition: Condition):
    assert judge(name, age, failed).condition is condition
