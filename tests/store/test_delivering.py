"""Deliveries on their whole way: stored event, lease, signature, HTTP, receiver with the official libraries."""

import base64
import itertools
import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, update
from standardwebhooks import Webhook, WebhookVerificationError

from service.adapters.clock import SystemClock
from service.adapters.poster import HttpPoster
from service.adapters.webhook_guard import WebhookGuard
from service.domain.outcomes import Notice, Wait
from service.domain.reasons import Reason
from service.domain.schedules import WEBHOOK_RETRY_SECONDS
from service.domain.states import State
from service.domain.webhook_urls import AllowList
from service.ports import Clock
from service.store import transitions, webhook_endpoints
from service.store.database import Database
from service.store.leases import LeaseKeeper
from service.store.tables import ChangeRequest, WebhookDelivery, WebhookEndpoint
from service.wiring import Timings, WorkerParts
from tests.support import rows
from tests.support.fakes import FakeSigner, FixedClock
from tests.support.hostile_http import Request, Say, serving
from workers import serve

SECRETS = ["whsec_" + base64.b64encode(bytes(range(start, start + 32))).decode() for start in (0, 32)]
HOUR = 3600.0


@pytest.fixture
def poster() -> Iterator[HttpPoster]:
    made = HttpPoster(WebhookGuard(AllowList.of(["127.0.0.1"])), seconds=5)
    yield made
    made.close()


def worker(database: Database, poster: HttpPoster, clock: Clock) -> WorkerParts:
    """A worker that can deliver and knows nothing else."""
    phala: Any = None
    return WorkerParts(
        database=database, clock=clock, keeper=LeaseKeeper(database), chains={}, queues={}, signer=FakeSigner(),
        poster=poster, phala=phala, timings=Timings(observe=5, safe_poll=60, recheck=600, track=5),
    )  # fmt: skip


def tell(database: Database, request_id: str, message: str, now: datetime = rows.NOW) -> None:
    """Append an event to a change request."""
    rows.shift(database, ChangeRequest, request_id, due_at=-1)
    lease = rows.lease(database, ChangeRequest, request_id)
    wait = Wait(0, Reason.PHALA_BUSY, notices=((Notice.ALERT, {"message": message}),))
    transitions.apply(database, lease, State.RECEIVED, wait, now)


def endpoint_id(database: Database) -> str:
    with database.transaction() as session:
        return session.scalars(select(WebhookEndpoint.id)).one()


class TestOfficialLibraries:
    """What arrives is verified by others' code; what was tampered with is not."""

    @pytest.fixture
    def arrived(self, database: Database, poster: HttpPoster) -> tuple[Request, str]:
        """A delivery while the secret is being replaced, and the id of its event."""
        with serving(lambda _: Say(204)) as server:
            workspace_id = rows.workspace(database)
            new = webhook_endpoints.NewEndpoint(server.url, SecretStr(SECRETS[0]))
            made = webhook_endpoints.create(database, workspace_id, new, rows.ACTOR).id
            until = datetime.now(UTC) + timedelta(days=1)
            webhook_endpoints.rotate(database, workspace_id, made, SecretStr(SECRETS[1]), until=until, actor=rows.ACTOR)
            tell(database, rows.change_request(database, workspace_id), "Ünïcode \u2028 \U0001f511")
            serve.serve_endpoint(worker(database, poster, SystemClock()), made)
            (request,) = server.requests
        (delivery,) = rows.deliveries(database)
        return request, delivery.event_id

    @pytest.mark.parametrize("secret", SECRETS)
    def test_python(self, arrived: tuple[Request, str], secret: str):
        request, event_id = arrived
        assert request.headers["webhook-id"] == event_id
        event = Webhook(secret).verify(request.body, request.headers)
        assert event["data"]["message"] == "Ünïcode \u2028 \U0001f511"
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(request.body + b" ", request.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(request.body, {**request.headers, "webhook-id": "evt_other"})

    def test_javascript(self, arrived: tuple[Request, str]):
        request, _ = arrived
        body = request.body.decode()
        late = str(int(request.headers["webhook-timestamp"]) + 1)
        asked = [{"secret": secret, "headers": request.headers, "body": body} for secret in SECRETS]
        forged = [
            {**asked[0], "body": body + " "},
            {**asked[0], "headers": {**request.headers, "webhook-timestamp": late}},
            {**asked[0], "secret": "whsec_" + base64.b64encode(bytes(32)).decode()},
        ]
        script = Path(__file__).with_name("verify.mjs")
        done = subprocess.run(
            ["node", script],
            input=json.dumps([*asked, *forged]),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert json.loads(done.stdout) == [json.loads(body)] * 2 + ["WebhookVerificationError"] * 3


class Simulation:
    """A worker and a receiver in a time that jumps to whatever is due next."""

    def __init__(self, database: Database, poster: HttpPoster, endpoint: str) -> None:
        self._database = database
        self.clock = FixedClock(rows.NOW)
        self._parts = worker(database, poster, self.clock)
        self._endpoint = endpoint
        self.seconds = 0.0

    def run(self, until: float) -> None:
        """Serve the endpoint whenever something is due, up to a time in seconds from the beginning."""
        while self.seconds < until:
            while serve.serve_endpoint(self._parts, self._endpoint):
                pass
            wait = self._next_due()
            self._pass(until - self.seconds if wait is None else min(wait, until - self.seconds))

    def _next_due(self) -> float | None:
        """Seconds until something more becomes due; what is due already and was not sent waits for that."""
        due_at = func.greatest(WebhookDelivery.due_at, WebhookEndpoint.due_at)
        statement = (
            select(func.extract("epoch", func.min(due_at) - func.clock_timestamp()))
            .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
            .where(WebhookDelivery.due_at.is_not(None), due_at > func.clock_timestamp())
        )
        with self._database.transaction() as session:
            seconds = session.scalars(statement).one()
        return None if seconds is None else max(float(seconds), 0.001)

    def _pass(self, seconds: float) -> None:
        """Let time pass: in the database all that is due comes nearer."""
        self.seconds += seconds
        self.clock.advance(seconds=seconds)
        nearer = timedelta(seconds=seconds)
        with self._database.transaction() as session:
            for table in (WebhookDelivery, WebhookEndpoint):
                session.execute(update(table).where(table.due_at.is_not(None)).values(due_at=table.due_at - nearer))


@pytest.mark.fault(
    "webhooks out",
    "A receiver is down, overloaded or not there for 72 hours",
    "everything arrives, the events of a request in order",
    "14 attempts in 4 days; after an outage all at once",
)
@pytest.mark.parametrize("outage", [Say(503), Say(429, b"", {"Retry-After": "3600"}), None])
def test_a_receiver_that_is_down_for_72_hours_gets_everything_in_order(
    database: Database, poster: HttpPoster, outage: Say | None
):
    """Events are written before, during and after; ``None`` is a receiver whose port is closed."""
    up = True
    with serving(lambda _: Say(204) if up or outage is None else outage) as server:
        workspace_id = rows.workspace(database, webhooks=[(server.url, SecretStr(SECRETS[0]))])
        requests = [rows.change_request(database, workspace_id) for _ in "12"]
        endpoint = endpoint_id(database)
        simulation = Simulation(database, poster, endpoint)
        tell(database, requests[0], "before")
        simulation.run(60)
        assert len(server.requests) == 1
        up = False
        if outage is None:
            _move(database, endpoint, _closed_port())
        for hours, request_id in zip(range(0, 72, 6), itertools.cycle(requests), strict=False):
            simulation.run(60 + hours * HOUR)
            tell(database, request_id, f"during hour {hours}", simulation.clock.now())
        simulation.run(60 + 72 * HOUR)
        tried = len(server.requests)
        up = True
        _move(database, endpoint, server.url)
        tell(database, requests[1], "after", simulation.clock.now())
        simulation.run(60 + 72 * HOUR + sum(WEBHOOK_RETRY_SECONDS))
        arrived = [request.json()["data"] for request in server.requests[tried:]]
    assert {one.state for one in rows.deliveries(database)} == {"delivered"}
    assert rows.read(database, WebhookEndpoint, endpoint).state == "active"
    # The first to arrive shows that the receiver is back; what has waited follows at once, as it happened.
    first, *rest = [(data["id"], data["sequence"]) for data in arrived]
    for request_id in requests:
        followed = [sequence for of, sequence in rest if of == request_id]
        assert followed == sorted(followed)
    told = {(event.change_request_id, event.seq) for one in requests for event in rows.events(database, one)}
    assert {first, *rest} == told - {(requests[0], 1)}
    assert len(rest) == 12


def _closed_port() -> str:
    with serving(lambda _: Say(204)) as closing:
        return closing.url


def _move(database: Database, endpoint: str, url: str) -> None:
    """Change where a name leads, so to speak: without the API, which takes a new URL for a new receiver."""
    with database.transaction() as session:
        session.execute(update(WebhookEndpoint).where(WebhookEndpoint.id == endpoint).values(url=url))
