"""What beat sends through every queue, through a real broker to a real worker: one that hangs is found."""

from collections.abc import Collection
from pathlib import Path

import pytest
from celery import Celery
from pydantic import SecretStr
from sqlalchemy import text

from service.domain.readiness import QUEUE_PREFIX, STALLED_AFTER_SECONDS, Condition
from service.settings import Settings
from service.store import readiness
from service.store.database import Database
from tests.support.service_processes import environment, process
from tests.support.threads import wait_until
from workers.app import ROUND_TRIP_TASK, make_app
from workers.verbs import Verb

QUEUES = {f"{QUEUE_PREFIX}{verb.value}" for verb in Verb}
TIME_PASSES = text("UPDATE heartbeats SET seen_at = seen_at - make_interval(secs => :seconds)")


def _queues(database: Database, condition: Condition) -> Collection[str]:
    parts = readiness.look(database)
    return {part.name for part in parts if part.name in QUEUES and part.condition is condition}


def _beat_once(app: Celery) -> None:
    """Send what the schedule says."""
    for entry in app.conf.beat_schedule.values():
        if entry["task"] == ROUND_TRIP_TASK:
            app.send_task(entry["task"], args=entry["args"], **entry["options"])


@pytest.mark.fault(
    "workers",
    "A worker hangs with every thread",
    "`/readyz` answers 503 and names every queue, until somebody serves them again",
    "75 s at the most",
)
def test_a_worker_that_hangs_is_found_and_one_that_goes_on_is_believed(
    database: Database, redis_url: str, tmp_path: Path
):
    clock = make_app(Settings(redis_url=SecretStr(redis_url)))
    env = environment(database, redis_url)
    with process(tmp_path, "worker", env, ready=lambda log: " ready." in log) as worker:
        _beat_once(clock)
        wait_until(lambda: _queues(database, Condition.OK) == QUEUES, "a message came through each queue", 60)
        worker.pause()
        _beat_once(clock)
        with database.transaction() as session:
            session.execute(TIME_PASSES, {"seconds": STALLED_AFTER_SECONDS})
        wait_until(lambda: _queues(database, Condition.FAILING) == QUEUES, "nobody serves them")
        worker.resume()
        wait_until(lambda: _queues(database, Condition.OK) == QUEUES, "it goes on", 60)
