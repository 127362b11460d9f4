"""What the processes stand on breaks: Redis, PostgreSQL, the disk that logs are written to."""

import json
from pathlib import Path

import httpx
import pytest
import redis
from pydantic import SecretStr

from sandbox.polling import wait_for
from service.settings import Settings
from tests.chaos.replica import following_replica
from tests.chaos.site import KINDS, WORKERS, Site
from tests.support.stack import Stack, compose, first_cvm
from workers.app import make_app
from workers.tasks import REQUEST_TASK, Doorbell
from workers.verbs import Verb

pytestmark = pytest.mark.chaos
LONG = 90.0
FOUND_SECONDS = 90.0


def _assert_once(stack: Stack, request_id: str, cvm: str) -> None:
    stack.wait_for(request_id, "completed", seconds=LONG)
    assert len(stack.accepted_commits(cvm)) == 1
    assert len(stack.world.phala.ledger("prepare", cvm)) == 1


@pytest.mark.fault(
    "broker",
    "Its connections stay open and nothing comes through them any more",
    "workers, beat and listener notice by themselves and connect anew",
    "at most 90 s",
)
def test_connections_to_redis_that_are_dead_without_a_word_are_made_anew(site: Site, stack: Stack):
    app = site.world.add_app()
    site.proxies["redis"].abandon_connections()
    request_id = stack.submit(first_cvm(app), compose("half open"))

    stack.wait_for(request_id, "proposed", seconds=FOUND_SECONDS)
    stack.approve(request_id)
    _assert_once(stack, request_id, first_cvm(app))


@pytest.mark.fault(
    "broker",
    "It loses everything, again and again, while requests are on their way",
    "the sweep rings again for what is due",
    "10 s for each row that had rung",
)
def test_a_broker_that_forgets_everything_again_and_again_delays_only(site: Site, stack: Stack):
    app = site.world.add_app()
    request_id = stack.submit(first_cvm(app), compose("forgetful"))
    for state in ("proposed", "registered", "committed"):
        stack.flush_broker()
        if state == "registered":
            stack.execute(stack.sign(request_id))
        stack.wait_for(request_id, state, "registered", "committed", "completed", seconds=LONG)
    site.process("redis").stop()
    site.start_server("redis")
    _assert_once(stack, request_id, first_cvm(app))


@pytest.mark.fault(
    "broker",
    "Messages of a worker that seems dead are given to another (visibility timeout), and it lives after all",
    "whoever comes second finds nothing due, or a lease",
    "no delay",
)
def test_messages_that_are_given_out_again_do_nothing_twice(site: Site, stack: Stack):
    app = site.world.add_app()
    site.world.phala.slow_down("PATCH", "/cvms/*", 3, after=True)
    request_id = stack.submit(first_cvm(app), compose("given out again"))
    with redis.Redis.from_url(site.deployment.redis_url) as broker:
        assert wait_for(lambda: bool(site.world.phala.ledger("prepare", first_cvm(app))), LONG)
        site.process(WORKERS[0]).pause()
        site.process(WORKERS[1]).pause()
        unacknowledged = broker.zrange("unacked_index", 0, -1)
        for tag in unacknowledged:
            kept = json.loads(broker.hget("unacked", tag) or b"null")
            if kept is not None:
                message, _, queue = kept
                broker.lpush(queue, json.dumps(message))
        assert unacknowledged, "nothing was on its way"
        site.process(WORKERS[1]).resume()
        site.process(WORKERS[0]).resume()
    stack.approve(request_id)
    _assert_once(stack, request_id, first_cvm(app))


@pytest.mark.fault(
    "workers",
    "Two workers are rung for one row at once, many times",
    "one takes it, the others find a lease or nothing due",
    "no delay",
)
def test_one_row_that_rings_many_times_at_both_workers_is_served_once(site: Site, stack: Stack):
    app = site.world.add_app()
    bell = Doorbell(make_app(Settings(redis_url=SecretStr(site.deployment.redis_url))))
    site.world.phala.slow_down("PATCH", "/cvms/*", 3)
    request_id = stack.submit(first_cvm(app), compose("rung for"))
    while stack.get(request_id)["state"] == "received":
        bell.ring(REQUEST_TASK, Verb.PREPARE, request_id)

    stack.approve(request_id)
    _assert_once(stack, request_id, first_cvm(app))


@pytest.mark.fault(
    "database",
    "PostgreSQL fails over to a promoted replica",
    "connections are made to the new one; what was committed is there, work goes on",
    "until it is promoted, then 15 s, the lease of what was under way, and 1 s of sweep",
)
def test_a_failover_to_a_promoted_replica_loses_nothing(tmp_path: Path):
    with Site(tmp_path) as site, following_replica(site) as replica:
        stack, app = site.stack, site.world.add_app(cvms=2)
        before, after = app.cvm_uuids
        first = stack.submit(before, compose("failover"))
        stack.wait_for(first, "proposed")
        signed = stack.sign(first)

        replica.take_over()

        assert wait_for(lambda: _serves(stack), LONG)
        stack.execute(signed)
        second = stack.submit(after, compose("failover"))
        _assert_once(stack, first, before)
        _assert_once(stack, second, after)
        replica.check()


@pytest.mark.fault(
    "workers",
    "The disk that the logs go to is full",
    "what would be logged is lost, nothing else is",
    "no delay",
)
def test_a_full_disk_under_the_logs_stops_nobody(site: Site, stack: Stack):
    logs = {name: site.deployment.directory / f"{name}.log" for name in KINDS}
    for name, log in logs.items():
        site.kill(name)
        log.unlink()
        log.symlink_to("/dev/full")
        site.bring_back(name)
    try:
        assert wait_for(site.all_run, LONG)
        assert wait_for(lambda: _serves(stack), LONG)
        app = site.world.add_app()
        site.world.phala.fail("PATCH", "/cvms/*", times=2)  # something to log
        request_id = stack.submit(first_cvm(app), compose("full disk"))
        stack.approve(request_id)
        _assert_once(stack, request_id, first_cvm(app))
        assert all(site.process(name).running for name in KINDS)
    finally:
        for name, log in logs.items():
            site.kill(name)
            log.unlink()
            site.bring_back(name)
    assert wait_for(lambda: _serves(stack), LONG)


def _serves(stack: Stack) -> bool:
    try:
        return stack.client.get("/readyz", params={"scope": "api"}).is_success
    except httpx.HTTPError:
        return False
