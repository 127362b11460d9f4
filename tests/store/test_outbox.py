"""Webhook deliveries: one for each event and endpoint, tried until the schedule ends."""

import json
from dataclasses import replace

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from service.domain.errors import LeaseLost
from service.domain.outcomes import Advance, Wait
from service.domain.reasons import Reason
from service.domain.schedules import WEBHOOK_RETRY_SECONDS, webhook_retry_after
from service.domain.states import State
from service.store import leases, outbox, transitions
from service.store.database import Database
from service.store.outbox import Attempt
from service.store.tables import ChangeRequest, WebhookAttempt, WebhookDelivery, WebhookEndpoint
from tests.support import rows
from tests.support.threads import together

URL = "https://receiver.example/hook"
SECRET = SecretStr("whsec_c2VjcmV0")
NO_ANSWER = Attempt(rows.NOW, 12, None, "timed out")


def _cancel(database: Database, workspace: str) -> str:
    request_id = rows.change_request(database, workspace)
    lease = rows.lease(database, ChangeRequest, request_id)
    transitions.apply(database, lease, State.RECEIVED, Advance(State.CANCELLED), rows.NOW)
    return request_id


@pytest.fixture
def listening(database: Database) -> str:
    return rows.workspace(database, webhooks=[(URL, SECRET)])


@pytest.fixture
def delivery_id(database: Database, listening: str) -> str:
    _cancel(database, listening)
    (delivery,) = rows.deliveries(database)
    return delivery.id


def _attempts(database: Database) -> list[WebhookAttempt]:
    with database.transaction() as session:
        return list(session.scalars(select(WebhookAttempt).order_by(WebhookAttempt.id)))


def test_each_event_goes_once_to_each_endpoint(database: Database):
    workspace = rows.workspace(database, webhooks=[(URL, SECRET), (URL + "/2", SECRET)])
    request_id = rows.change_request(database, workspace, State.PROPOSED)
    for target, source in ((State.EXECUTED, State.PROPOSED), (State.PREPARED, State.EXECUTED)):
        facts = {"evidence_block_hash": "0x01", "evidence_block_number": 1}
        lease = rows.lease(database, ChangeRequest, request_id)
        transitions.apply(database, lease, source, Advance(target, facts), rows.NOW)  # type: ignore[arg-type]
    events = rows.events(database, request_id)
    sent = [(delivery.event_id, delivery.endpoint_id) for delivery in rows.deliveries(database)]
    assert len(sent) == len(set(sent)) == 4
    assert {event_id for event_id, _ in sent} == {event.id for event in events}


def test_an_endpoint_that_is_switched_off_gets_none(database: Database, listening: str):
    with database.transaction() as session:
        session.execute(update(WebhookEndpoint).values(enabled=False))
    request_id = _cancel(database, listening)
    assert len(rows.events(database, request_id)) == 1
    assert rows.deliveries(database) == []


def test_another_workspace_gets_none(database: Database, listening: str):
    _cancel(database, rows.workspace(database, "other"))
    assert rows.deliveries(database) == []
    _cancel(database, listening)
    assert len(rows.deliveries(database)) == 1


def test_a_wait_without_a_notice_tells_nobody(database: Database, listening: str):
    request_id = rows.change_request(database, listening)
    lease = rows.lease(database, ChangeRequest, request_id)
    transitions.apply(database, lease, State.RECEIVED, Wait(5, Reason.PHALA_BUSY), rows.NOW)
    assert rows.deliveries(database) == []


def test_a_delivery_carries_the_stored_bytes_and_opens_its_secret(database: Database, delivery_id: str):
    assert rows.is_due(database, WebhookDelivery, delivery_id)
    delivery = outbox.load(database, rows.lease(database, WebhookDelivery, delivery_id))
    assert (delivery.url, delivery.secret.get_secret_value()) == (URL, SECRET.get_secret_value())
    assert delivery.failed_attempts == 0
    body = json.loads(delivery.body)
    assert (body["type"], body["data"]["state"]) == ("change_request.cancelled", "cancelled")
    assert SECRET.get_secret_value() not in repr(delivery)


def test_a_success_ends_it(database: Database, delivery_id: str):
    outbox.record(database, rows.lease(database, WebhookDelivery, delivery_id), Attempt(rows.NOW, 12, 204, ""), 5.0)
    row = rows.read(database, WebhookDelivery, delivery_id)
    assert (row.state, row.due_at, row.delivered_at, row.attempts) == ("delivered", None, rows.NOW, 1)
    assert [(tried.status, tried.duration_ms) for tried in _attempts(database)] == [(204, 12)]


@pytest.mark.parametrize("status", [None, 100, 199, 300, 302, 404, 410, 500])
def test_nothing_but_2xx_is_one(database: Database, delivery_id: str, status: int | None):
    lease = rows.lease(database, WebhookDelivery, delivery_id)
    outbox.record(database, lease, replace(NO_ANSWER, status=status), 5.0)
    row = rows.read(database, WebhookDelivery, delivery_id)
    assert (row.state, row.delivered_at, row.attempts) == ("pending", None, 1)
    assert 0 < (rows.due_in(database, WebhookDelivery, delivery_id) or 0) <= 5


def test_when_the_schedule_ends_it_failed(database: Database, delivery_id: str):
    for tries in range(1, len(WEBHOOK_RETRY_SECONDS) + 2):
        lease = rows.lease(database, WebhookDelivery, delivery_id)
        failed = outbox.load(database, lease).failed_attempts
        assert failed == tries - 1
        outbox.record(database, lease, NO_ANSWER, webhook_retry_after(failed + 1))
        row = rows.read(database, WebhookDelivery, delivery_id)
        assert row.state == ("pending" if tries <= len(WEBHOOK_RETRY_SECONDS) else "failed")
        if row.due_at is not None:
            rows.shift(database, WebhookDelivery, delivery_id, due_at=0)
    assert len(_attempts(database)) == len(WEBHOOK_RETRY_SECONDS) + 1
    assert not rows.is_due(database, WebhookDelivery, delivery_id)


def test_whatever_the_receiver_says_can_be_stored(database: Database, delivery_id: str):
    attempt = Attempt(rows.NOW, 12, 500, "nul \0 and half a pair \ud83d")
    outbox.record(database, rows.lease(database, WebhookDelivery, delivery_id), attempt, 5.0)
    (stored,) = _attempts(database)
    assert stored.detail is not None
    assert stored.detail.startswith("nul ")


def test_a_late_attempt_is_kept_and_changes_nothing(database: Database, delivery_id: str):
    late = rows.lease(database, WebhookDelivery, delivery_id)
    rows.shift(database, WebhookDelivery, delivery_id, lease_until=-1)
    outbox.record(database, rows.lease(database, WebhookDelivery, delivery_id), Attempt(rows.NOW, 1, 200, ""), None)
    with pytest.raises(LeaseLost):
        outbox.record(database, late, NO_ANSWER, None)
    row = rows.read(database, WebhookDelivery, delivery_id)
    assert (row.state, row.attempts) == ("delivered", 1)
    assert [tried.status for tried in _attempts(database)] == [200, None]


def test_of_many_workers_one_delivers(database: Database, delivery_id: str):
    def deliver() -> bool:
        lease = leases.acquire(database, WebhookDelivery, delivery_id)
        if lease is None:
            return False
        outbox.record(database, lease, Attempt(rows.NOW, 1, 200, ""), None)
        return True

    assert together([deliver] * 8).count(True) == 1
    assert len(_attempts(database)) == 1


def test_what_is_still_to_be_delivered_is_counted(database: Database, listening: str):
    request_id = _cancel(database, listening)
    _cancel(database, listening)
    assert outbox.pending(database, request_id) == 1
    mine = next(each for each in rows.deliveries(database) if each.event_id == rows.events(database, request_id)[0].id)
    outbox.record(database, rows.lease(database, WebhookDelivery, mine.id), Attempt(rows.NOW, 1, 200, ""), None)
    assert outbox.pending(database, request_id) == 0
