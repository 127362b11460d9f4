"""SIGTERM to real processes in the middle of their work: what can end ends, the rest is free for others at once."""

import json
import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import redis
from pydantic import SecretStr

from sandbox.processes import ManagedProcess, free_port
from sandbox.world import answers
from service.api.examples import SUBMIT_PATCH
from service.settings import Settings
from service.store.database import Database
from service.store.locks import leadership
from service.store.tables import ChangeRequest
from tests.support import rows
from tests.support.hostile_http import Behaviour, Request, Say, Stall, serving
from tests.support.served_api import KEYS, callers
from tests.support.service_processes import environment, process
from tests.support.threads import holding, in_background, wait_until, wait_until_blocked
from workers.app import make_app
from workers.tasks import REQUEST_TASK
from workers.verbs import Verb

A_DAY = timedelta(days=1)


def _tell_to_stop(running: ManagedProcess) -> None:
    os.kill(running.pid, signal.SIGTERM)


def test_a_worker_ends_what_it_can_and_gives_the_rest_back(database: Database, redis_url: str, tmp_path: Path):
    told = threading.Event()

    def phala(request: Request) -> Behaviour:
        if "app-ends" not in request.target:
            return Stall()
        told.wait()
        return Say.json({"detail": "CVM not found"}, 404)

    bell = make_app(Settings(redis_url=SecretStr(redis_url)))
    with serving(phala) as cloud:
        workspace = rows.workspace(database, phala_base_url=cloud.url)
        ends, hangs, late = (
            rows.change_request(database, workspace, cvm_id=f"app-{name}", deadline_at=datetime.now(UTC) + A_DAY)
            for name in ("ends", "hangs", "late")
        )
        env = environment(database, redis_url, stop_seconds="3", http_timeout_seconds="600")
        with process(tmp_path, "worker", env, ready=lambda log: " ready." in log) as worker:
            for request_id in (ends, hangs):
                bell.send_task(REQUEST_TASK, args=[request_id], queue=Verb.PREPARE.value)
            wait_until(lambda: len(cloud.requests) == 2, "both calls are under way", 60)

            _tell_to_stop(worker)
            wait_until(lambda: "Warm shutdown" in worker.log_path.read_text(), "it has heard")
            bell.send_task(REQUEST_TASK, args=[late], queue=Verb.PREPARE.value)
            told.set()

            assert worker.wait(60) == 0
            assert rows.read(database, ChangeRequest, ends).state == "failed"
            given_back = rows.read(database, ChangeRequest, hangs)
            assert (given_back.state, given_back.lease_until, given_back.attempts) == ("received", None, 0)
            assert rows.lease(database, ChangeRequest, hangs).fence == 2, "the next worker may take it now"
            assert rows.read(database, ChangeRequest, late).fence == 0, "no new lease was taken"


def test_the_api_answers_who_waits_and_who_is_under_way(database: Database, redis_url: str, tmp_path: Path):
    request_id = rows.change_request(database, callers(database)["acme"])
    port, metrics_port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {"api_port": str(port), "metrics_port": str(metrics_port), "stop_seconds": "60"}
    headers = {"Authorization": f"Bearer {KEYS['acme']}"}
    serves, lock = answers(f"{url}/healthz"), threading.Event()

    def submit() -> httpx.Response:
        return client.post("/v1/change-requests", json=SUBMIT_PATCH)

    def wait() -> httpx.Response:
        return client.get(f"/v1/change-requests/{request_id}?wait=60")

    def waits() -> bool:
        return "countersign_waiting_clients 1.0" in httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").text

    def locked() -> None:
        with holding(database, "LOCK TABLE change_requests IN SHARE MODE"):
            lock.wait()

    with (
        process(tmp_path, "serve", environment(database, redis_url, **settings), ready=lambda _: serves()) as api,
        httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client,
        in_background(locked),
        in_background(submit) as submitted,
        in_background(wait) as waiting,
    ):
        try:
            wait_until_blocked(database, 1)
            wait_until(waits, "the wait has begun")
            _tell_to_stop(api)
            assert waiting.result(timeout=30).json()["state"] == "received"
            assert not submitted.done()
        finally:
            lock.set()
        assert submitted.result(timeout=30).status_code == 202
        assert api.wait(60) == 0


def test_the_clock_ends_well(database: Database, redis_url: str, tmp_path: Path):
    env = environment(database, redis_url)
    with (
        redis.Redis.from_url(redis_url) as broker,
        process(tmp_path, "beat", env, ready=lambda _: bool(broker.llen(Verb.SWEEP))) as beat,
    ):
        _tell_to_stop(beat)
        assert beat.wait(60) == 0


def test_a_listener_whose_node_hangs_makes_room_for_another(database: Database, redis_url: str, tmp_path: Path):
    def node(request: Request) -> Behaviour:
        asked = request.json()
        return Stall() if isinstance(asked, list) else Say.json({"jsonrpc": "2.0", "id": 0, "result": "0x7a69"})

    with serving(node) as served:
        nodes = [f"{served.url}/{number}" for number in range(3)]
        chain = {"name": "anvil", "rpc_urls": nodes, "safe_service_url": served.url}
        settings = {"chains": json.dumps({str(rows.CHAIN_ID): chain}), "http_timeout_seconds": "600"}
        env = environment(database, redis_url, stop_seconds="0.2", **settings)
        with process(tmp_path, "watch", env, ready=lambda log: "listening to new blocks" in log) as watch:
            wait_until(lambda: len(served.requests) == 6, "every node was asked who it is, and then for its head")
            with leadership(database, f"watch:{rows.CHAIN_ID}") as lead:
                assert not lead.leads
            _tell_to_stop(watch)
            assert watch.wait(60) == 0
        with leadership(database, f"watch:{rows.CHAIN_ID}") as lead:
            assert lead.leads
