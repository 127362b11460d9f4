"""The API beside the least that FastAPI, ORM and PostgreSQL can do, in one run, as ratios.

A POST stores a change request of 4 KB with its event, with key, scope, limits and ``Idempotency-Key`` on. Rounds of
ours and of the others take turns, so that whatever else the machine does hits both. Run ``python -m bench.api``;
figures go to standard output and to ``var/bench/api.json``.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import uuid
from base64 import b64encode
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import psycopg

from bench import http_load
from bench.http_load import Load
from sandbox.postgres import EmbeddedPostgres
from sandbox.postgres_files import home_for, programs
from sandbox.processes import ManagedProcess, free_port
from sandbox.redis_server import EmbeddedRedis
from sandbox.world import answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

REPORT = Path("var/bench/api.json")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = 4.0
PATH = "/v1/change-requests"
COMPOSE = "services:\n  app:\n    image: ghcr.io/acme/agent:1.4.2\n" + "    # filler\n" * 300
BODY = json.dumps({"cvm_id": "my-agent", "title": "bench", "patch": {"docker_compose_file": COMPOSE}}).encode()
SECRET = b64encode(bytes(range(32))).decode()
WORKSPACE = {"slug": "bench", "phala_api_key": "phak_bench", "safes": []}
PGBENCH = """
BEGIN;
INSERT INTO change_requests (id, workspace_id, state, state_entered_at, intake, cvm_id, title, patch,
    allow_without_approval, warnings, deadline_at, due_at, created_at, updated_at, last_event_seq)
VALUES ('cr_' || gen_random_uuid(), '{workspace}', 'received', now(), 'patch', gen_random_uuid(), 'bench', '{patch}',
    false, '{{}}', now() + interval '30 days', now(), now(), now(), 1) RETURNING id AS request_id \\gset
INSERT INTO events (id, workspace_id, change_request_id, seq, type, state, body, created_at)
VALUES ('evt_' || gen_random_uuid(), '{workspace}', :request_id, 1, 'change_request.received', 'received',
    repeat('x', 500), now());
INSERT INTO idempotent_answers (workspace_id, key, fingerprint, status, answer_sealed)
VALUES ('{workspace}', gen_random_uuid()::text, sha256('x'), 202, decode(repeat('ab', 1500), 'hex'));
COMMIT;
"""


class Bench:
    """The servers of one run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.postgres = EmbeddedPostgres(directory / "postgres").start()
        self.redis = EmbeddedRedis(directory / "redis").start()
        self.url = self.postgres.ensure_database("bench")
        self.environment = {
            **os.environ,
            "COUNTERSIGN_DATABASE_URL": self.url,
            "COUNTERSIGN_REDIS_URL": self.redis.url,
            "COUNTERSIGN_ENCRYPTION_KEYS": json.dumps({"k1": SECRET}),
            "COUNTERSIGN_FINGERPRINT_KEY": SECRET,
            "COUNTERSIGN_API_REQUESTS_PER_MINUTE": "1000000",
        }
        self.command("migrate")
        self.workspace = json.loads(self.command("workspace", "apply", "-", stdin=json.dumps(WORKSPACE)))["id"]
        made = json.loads(self.command("key", "create", "--workspace", "bench", "--scope", "submit"))
        self.headers = {"Authorization": f"Bearer {made['key']}"}

    def command(self, *arguments: str, stdin: str = "") -> str:
        command = [sys.executable, "-m", "service", *arguments]
        done = subprocess.run(command, input=stdin, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def serving(self, name: str, *command: str, ready: str) -> Iterator[int]:
        """A server as a process of its own; its port."""
        port = free_port()
        process = ManagedProcess(
            name,
            [sys.executable, "-m", *command, *([str(port)] if name == "bare" else [])],
            log_path=self.directory / f"{name}.log",
            ready=answers(f"http://127.0.0.1:{port}{ready}"),
            env={**self.environment, "COUNTERSIGN_API_PORT": str(port)},
        )
        process.start()
        try:
            yield port
        finally:
            process.stop()

    def pgbench(self) -> Load:
        """The same inserts by pgbench: what the database can do when nobody asks for anything else."""
        script = self.directory / "inserts.sql"
        patch = json.dumps(json.loads(BODY)["patch"]).replace("'", "''")
        script.write_text(PGBENCH.format(workspace=self.workspace, patch=patch))
        parts = urlsplit(self.url)
        program = programs(home_for(self.directory / "postgres" / "cluster", None), None) / "pgbench"
        command = [
            str(program), "-n", "-M", "prepared", "-c", "8", "-j", "2", "-T", str(int(SECONDS)), "-f", str(script),
            "-h", "127.0.0.1", "-p", str(parts.port), "-U", str(parts.username), "bench",
        ]  # fmt: skip
        environment = {**os.environ, "PGPASSWORD": str(parts.password)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        rate = re.search(r"tps = ([\d.]+)", done.stdout)
        assert done.returncode == 0, done.stderr[-2000:]
        assert rate, done.stdout
        self.analyze()
        return Load(float(rate[1]), 0.0)

    def analyze(self) -> None:
        """What autovacuum does within a minute: thousands of rows came in seconds, and plans know of none of them."""
        with closing(psycopg.connect(self.url, autocommit=True)) as connection:
            connection.execute("VACUUM ANALYZE")

    def stop(self) -> None:
        self.redis.stop()
        self.postgres.destroy()


def post(path: str, headers: Mapping[str, str]) -> Callable[[int, int], bytes]:
    def make(_: int, __: int) -> bytes:
        once = str(uuid.uuid4())
        # A CVM has one live change request.
        body = BODY.replace(b"my-agent", once.encode())
        return http_load.request("POST", path, {**headers, "Idempotency-Key": once}, body)

    return make


def get(path: str, headers: Mapping[str, str]) -> Callable[[int, int], bytes]:
    ready = http_load.request("GET", path, dict(headers))
    return lambda _, __: ready


def in_turns(kinds: Mapping[str, Callable[[], Load]]) -> dict[str, Load]:
    """Medians over the rounds, in which every kind has its turn; each is the first of one round, the second of another.

    What comes after many writes pays for a checkpoint that they caused.
    """
    rounds: dict[str, list[Load]] = {name: [] for name in kinds}
    for number in range(ROUNDS + 1):
        first = number % len(kinds)
        for name in [*kinds][first:] + [*kinds][:first]:
            load = kinds[name]()
            if number:  # the first round warms up
                rounds[name].append(load)
    return {
        name: Load(
            statistics.median(load.per_second for load in all_of), statistics.median(load.p99_ms for load in all_of)
        )
        for name, all_of in rounds.items()
    }


def measure(bench: Bench) -> dict[str, Any]:
    with (
        bench.serving("api", "service", "serve", ready="/readyz") as ours,
        bench.serving("bare", "bench.bare_api", bench.url, bench.workspace, ready="/healthz") as bare,
    ):
        stored = (
            httpx.post(f"http://127.0.0.1:{ours}{PATH}", content=BODY, headers={**bench.headers, **JSON})
            .raise_for_status()
            .json()
        )
        one = f"{PATH}/{stored['id']}"
        load = http_load.run
        found = in_turns(
            {
                "post": lambda: load(ours, post(PATH, bench.headers), expect=202, seconds=SECONDS),
                "bare_post": lambda: load(bare, post("/", {}), expect=202, seconds=SECONDS),
                "get": lambda: load(ours, get(one, bench.headers), expect=200, seconds=SECONDS),
                "bare_get": lambda: load(bare, get(f"/{stored['id']}", {}), expect=200, seconds=SECONDS),
                "pgbench": bench.pgbench,
            }
        )
        up = in_turns({"post": lambda: load(ours, post(PATH, bench.headers), expect=202, seconds=SECONDS)})
        bench.redis.stop()
        down = in_turns({"post": lambda: load(ours, post(PATH, bench.headers), expect=202, seconds=SECONDS)})
    figures = {f"{name}_per_s": load.per_second for name, load in found.items()}
    figures |= {f"{name}_p99_ms": load.p99_ms for name, load in found.items() if name != "pgbench"}
    return figures | {
        "post_over_bare": found["post"].per_second / found["bare_post"].per_second,
        "get_over_bare": found["get"].per_second / found["bare_get"].per_second,
        "post_over_pgbench": found["post"].per_second / found["pgbench"].per_second,
        "post_p99_ms_redis_up": up["post"].p99_ms,
        "post_p99_ms_redis_down": down["post"].p99_ms,
    }


JSON = {"Content-Type": "application/json"}


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        try:
            figures = {name: round(value, 3) for name, value in measure(bench).items()}
        finally:
            bench.stop()
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(figures, indent=2) + "\n")
    for name, value in figures.items():
        print(f"{name:28} {value:>12,.3f}")


if __name__ == "__main__":
    main()
