"""Webhook deliveries by a worker, from the stored event to the recorded attempt, beside a bare httpx loop in one run.

Both send the same signed bodies to the same local receiver, one after the other on a connection that is kept; the bare
loop stores nothing. Run ``python -m bench.webhooks``; figures go to standard output and to ``var/bench/webhooks.json``.
"""

from __future__ import annotations

import base64
import json
import statistics
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import SecretStr
from sqlalchemy import func, select, update

from bench._local_server import other_process
from sandbox.postgres import EmbeddedPostgres
from service.adapters.clock import SystemClock
from service.adapters.poster import HttpPoster
from service.adapters.webhook_guard import WebhookGuard
from service.domain.actors import Actor
from service.domain.webhook_signature import headers
from service.domain.webhook_urls import AllowList
from service.domain.webhooks import EndpointEvent
from service.store import acts, events, webhook_endpoints
from service.store.database import Database, make_engine
from service.store.leases import LeaseKeeper
from service.store.migrate import upgrade
from service.store.sealing import Sealer
from service.store.tables import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from service.store.workspaces import WorkspaceSpec, save
from service.wiring import Timings, WorkerParts
from workers import serve

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

REPORT = Path("var/bench/webhooks.json")
ROUNDS = 5
DELIVERIES = 1000
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
MESSAGE = "x" * 1500
OPERATOR = Actor.operator("bench", "localhost")
"""Makes a body as long as that of a change request."""


def _take(connection: socket.socket) -> None:
    """Answer every POST with 204."""
    with connection.makefile("rb") as lines:
        while lines.readline():
            length = 0
            while (line := lines.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            lines.read(length)
            connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")


@contextmanager
def migrated() -> Iterator[Database]:
    """A database of our own that keeps what it commits, as in operation."""
    with tempfile.TemporaryDirectory(prefix="countersign-bench-") as folder:
        server = EmbeddedPostgres(Path(folder) / "postgres", fsync=True)
        try:
            url = server.start().url()
            upgrade(url)
            sealer = Sealer({"k1": b"bench".ljust(32, b"-")}, b"fingerprints".ljust(32, b"-"))
            engine = make_engine(url)
            yield Database(engine, sealer, public_url="https://countersign.example")
            engine.dispose()
        finally:
            server.destroy()


def write(database: Database, workspace_id: str, endpoint_id: str) -> None:
    """Write the events of a round."""
    with database.transaction() as session:
        for _ in range(DELIVERIES):
            now, data = SystemClock().now(), {"message": MESSAGE}
            event = acts.append_about_endpoint(
                database, session, workspace_id, EndpointEvent.TEST, actor=OPERATOR, now=now, data=data
            )
            events.deliver(database, session, event, [endpoint_id])


def ours(parts: WorkerParts, endpoint_id: str) -> float:
    """Deliveries per second of a worker."""
    with parts.database.transaction() as session:
        session.execute(update(WebhookEndpoint).values(due_at=func.now()))
    started = time.perf_counter()
    while serve.serve_endpoint(parts, endpoint_id):
        pass
    return DELIVERIES / (time.perf_counter() - started)


def bare(client: httpx.Client, url: str) -> float:
    """POSTs per second of a loop that signs and sends."""
    body = json.dumps({"type": "webhook_endpoint.test", "data": {"message": MESSAGE}}).encode()
    started = time.perf_counter()
    for number in range(DELIVERIES):
        signed = headers(SECRET, f"evt_{number:032x}", int(time.time()), body)
        client.post(url, content=body, headers={**signed, "content-type": "application/json"}).raise_for_status()
    return DELIVERIES / (time.perf_counter() - started)


def rates() -> dict[str, float]:
    with ExitStack() as stack:
        url, database = stack.enter_context(other_process(_take)) + "/", stack.enter_context(migrated())
        client = stack.enter_context(httpx.Client(trust_env=False))
        poster = HttpPoster(WebhookGuard(AllowList.of(["127.0.0.1"])))
        stack.callback(poster.close)
        unused: Any = None
        parts = WorkerParts(
            database=database,
            clock=SystemClock(),
            keeper=LeaseKeeper(database),
            chains={},
            queues={},
            signer=unused,
            poster=poster,
            phala=unused,
            timings=Timings(observe=5, safe_poll=60, recheck=600, track=5),
        )
        workspace_id = save(database, _workspace(), OPERATOR)
        new = webhook_endpoints.NewEndpoint(url, SecretStr(SECRET))
        endpoint_id = webhook_endpoints.create(database, workspace_id, new, OPERATOR).id
        pairs = []
        for _ in range(ROUNDS):
            write(database, workspace_id, endpoint_id)
            pairs.append((ours(parts, endpoint_id), bare(client, url)))
        with database.transaction() as session:
            delivered = select(func.count()).where(WebhookDelivery.state == "delivered")
            assert session.scalars(delivered).one() == ROUNDS * DELIVERIES
            assert session.scalars(select(func.count(WebhookAttempt.id))).one() == ROUNDS * DELIVERIES
    return {
        "deliveries_per_s": statistics.median(own for own, _ in pairs),
        "bare_httpx_posts_per_s": statistics.median(loop for _, loop in pairs),
        "deliveries_over_bare_httpx": statistics.median(own / loop for own, loop in pairs),
    }


def _workspace() -> WorkspaceSpec:
    key = SecretStr("phala-key-of-the-bench")
    return WorkspaceSpec(slug="bench", phala_base_url="https://cloud.example/api/v1", phala_api_key=key, safes=[])


def main() -> None:
    figures = {name: round(value, 3) for name, value in rates().items()}
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(figures, indent=2) + "\n")
    for name, value in figures.items():
        print(f"{name:44} {value:>12,.3f}")


if __name__ == "__main__":
    main()
