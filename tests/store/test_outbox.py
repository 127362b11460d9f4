"""Webhook deliveries: one for each event and endpoint, in order, tried until the schedule ends."""

import json
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from service.domain.actors import Actor
from service.domain.deliveries import Attempt
from service.domain.errors import LeaseLost
from service.domain.outcomes import Advance, Notice, Wait
from service.domain.reasons import Reason
from service.domain.schedules import WEBHOOK_RETRY_SECONDS, webhook_retry_after
from service.domain.states import State
from service.domain.webhooks import HOLDING_STEPS, Fault
from service.store import leases, outbox, transitions
from service.store.database import Database
from service.store.outbox import Result
from service.store.tables import ChangeRequest, Event, WebhookAttempt, WebhookDelivery, WebhookEndpoint
from tests.support import rows
from tests.support.threads import together

URL = "https://receiver.example/hook"
SECRET = SecretStr("whsec_c2VjcmV0")
WEEK = 7 * 86400.0


def taken(at: float = 0) -> Attempt:
    return Attempt(rows.NOW + timedelta(seconds=at), 12, 204, "")


def refused(at: float = 0, status: int | None = 500) -> Attempt:
    fault = Fault.BAD_STATUS if status else Fault.NO_ANSWER
    return Attempt(rows.NOW + timedelta(seconds=at), 12, status, "no", fault)


def record(database: Database, *results: Result, disable_seconds: float = WEEK, hold: float = 0) -> bool:
    """Record what came of deliveries of one endpoint, as its lease holder."""
    lease = rows.lease(database, WebhookEndpoint, endpoint_of(database, results[0].delivery_id))
    served = outbox.record(database, lease, results, disable_seconds=disable_seconds)
    outbox.give_back(database, lease, hold, unanswered=hold > 0)
    return served


def endpoint_of(database: Database, delivery_id: str) -> str:
    return str(rows.read(database, WebhookDelivery, delivery_id).endpoint_id)


def due(database: Database, endpoint_id: str) -> list[str]:
    """Ids of what would be sent now, in order."""
    lease = rows.lease(database, WebhookEndpoint, endpoint_id)
    found = [delivery.id for delivery in outbox.load(database, lease, rows.NOW, 100).deliveries]
    outbox.give_back(database, lease, 0, unanswered=False)
    return found


def make_due(database: Database, delivery_id: str) -> None:
    with database.transaction() as session:
        rewound = WebhookDelivery.created_at - timedelta(seconds=1)
        session.execute(update(WebhookDelivery).where(WebhookDelivery.id == delivery_id).values(due_at=rewound))


def _cancel(database: Database, workspace: str) -> str:
    request_id = rows.change_request(database, workspace)
    lease = rows.lease(database, ChangeRequest, request_id)
    transitions.apply(database, lease, State.RECEIVED, Advance(State.CANCELLED), rows.NOW)
    return request_id


def tell(database: Database, request_id: str, count: int) -> None:
    """Append notices to a change request."""
    lease = rows.lease(database, ChangeRequest, request_id)
    notices = tuple((Notice.ALERT, {"number": number}) for number in range(count))
    transitions.apply(database, lease, State.RECEIVED, Wait(0, Reason.PHALA_BUSY, notices=notices), rows.NOW)


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


def _endpoint(database: Database) -> WebhookEndpoint:
    with database.transaction() as session:
        return session.scalars(select(WebhookEndpoint)).one()


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


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ([], 2),
        (["change_request.*"], 2),
        (["change_request.alert"], 1),
        (["change_request.failed", "change_request.cancelled"], 1),
        (["webhook_endpoint.*"], 0),
    ],
)
def test_an_endpoint_gets_only_the_types_that_it_wants(
    database: Database, listening: str, wanted: list[str], count: int
):
    with database.transaction() as session:
        session.execute(update(WebhookEndpoint).values(event_types=wanted))
    request_id = rows.change_request(database, listening)
    tell(database, request_id, 1)
    lease = rows.lease(database, ChangeRequest, request_id)
    transitions.apply(database, lease, State.RECEIVED, Advance(State.CANCELLED), rows.NOW)
    assert len(rows.events(database, request_id)) == 2
    assert len(rows.deliveries(database)) == count


def test_another_workspace_gets_none(database: Database, listening: str):
    _cancel(database, rows.workspace(database, "other"))
    assert rows.deliveries(database) == []
    _cancel(database, listening)
    assert len(rows.deliveries(database)) == 1


def test_a_wait_without_a_notice_tells_nobody(database: Database, listening: str):
    tell(database, rows.change_request(database, listening), 0)
    assert rows.deliveries(database) == []


def test_only_endpoints_with_something_due_are_rung_for(database: Database, listening: str):
    assert outbox.ring_due(database, 10) == []
    _cancel(database, listening)
    endpoint_id = _endpoint(database).id
    assert outbox.ring_due(database, 10) == [endpoint_id]
    assert outbox.ring_due(database, 10) == []
    outbox.not_now(database, endpoint_id)
    assert outbox.ring_due(database, 10) == [endpoint_id]


def test_a_delivery_carries_the_stored_bytes_and_opens_its_secret(database: Database, delivery_id: str):
    lease = rows.lease(database, WebhookEndpoint, endpoint_of(database, delivery_id))
    batch = outbox.load(database, lease, rows.NOW, 10)
    (delivery,) = batch.deliveries
    (secret,) = outbox.secrets(database, batch)
    assert (batch.url, secret.get_secret_value(), delivery.step) == (URL, SECRET.get_secret_value(), 0)
    body = json.loads(delivery.body)
    assert (body["type"], body["data"]["state"]) == ("change_request.cancelled", "cancelled")
    assert SECRET.get_secret_value() not in repr(batch)


def test_a_success_ends_it(database: Database, delivery_id: str):
    assert record(database, Result(delivery_id, taken(), 5.0))
    row = rows.read(database, WebhookDelivery, delivery_id)
    assert (row.state, row.due_at, row.delivered_at, row.attempts) == ("delivered", None, rows.NOW, 1)
    assert [(tried.status, tried.duration_ms, tried.fault) for tried in _attempts(database)] == [(204, 12, None)]
    assert due(database, row.endpoint_id) == []


@pytest.mark.parametrize("status", [None, 100, 199, 300, 302, 404, 410, 500])
def test_nothing_but_2xx_is_one(status: int | None):
    assert not refused(status=status).succeeded


def test_after_a_failure_it_is_due_again_later(database: Database, delivery_id: str):
    record(database, Result(delivery_id, refused(), 50.0))
    row = rows.read(database, WebhookDelivery, delivery_id)
    assert (row.state, row.delivered_at, row.attempts, row.step) == ("pending", None, 1, 1)
    assert due(database, row.endpoint_id) == []
    assert _endpoint(database).failing_since == rows.NOW


def test_when_the_schedule_ends_it_failed(database: Database, delivery_id: str):
    for tries in range(1, len(WEBHOOK_RETRY_SECONDS) + 2):
        assert due(database, endpoint_of(database, delivery_id)) == [delivery_id]
        record(database, Result(delivery_id, refused(), webhook_retry_after(tries)))
        row = rows.read(database, WebhookDelivery, delivery_id)
        assert row.state == ("pending" if tries <= len(WEBHOOK_RETRY_SECONDS) else "failed")
        assert row.step == tries
        if row.due_at is not None:
            make_due(database, delivery_id)
    assert len(_attempts(database)) == len(WEBHOOK_RETRY_SECONDS) + 1
    assert due(database, endpoint_of(database, delivery_id)) == []


@pytest.mark.fault(
    "webhooks out",
    "A receiver answers nonsense",
    "stored clipped and printable; only 2xx is success",
    "5 s, 30 s, 2 min, 10 min, ...",
)
def test_whatever_the_receiver_says_can_be_stored(database: Database, delivery_id: str):
    attempt = Attempt(rows.NOW, 12, 500, "nul \0 and half a pair \ud83d", Fault.BAD_STATUS)
    record(database, Result(delivery_id, attempt, 5.0))
    (stored,) = _attempts(database)
    assert stored.detail is not None
    assert stored.detail.startswith("nul ")


@pytest.mark.fault(
    "workers",
    "A worker that delivers webhooks loses its lease",
    "its attempt is kept for the record; who took over decides",
    "no delay",
)
def test_a_late_attempt_is_kept_and_changes_nothing(database: Database, delivery_id: str):
    endpoint_id = endpoint_of(database, delivery_id)
    late = rows.lease(database, WebhookEndpoint, endpoint_id)
    rows.shift(database, WebhookEndpoint, endpoint_id, lease_until=-1)
    record(database, Result(delivery_id, taken(), None))
    with pytest.raises(LeaseLost):
        outbox.record(database, late, [Result(delivery_id, refused(), None)], disable_seconds=WEEK)
    row = rows.read(database, WebhookDelivery, delivery_id)
    assert (row.state, row.attempts) == ("delivered", 1)
    assert [tried.status for tried in _attempts(database)] == [204, 500]


def test_of_many_workers_one_delivers(database: Database, delivery_id: str):
    endpoint_id = endpoint_of(database, delivery_id)

    def deliver() -> bool:
        lease = leases.acquire(database, WebhookEndpoint, endpoint_id)
        if lease is None:
            return False
        outbox.record(database, lease, [Result(delivery_id, taken(), None)], disable_seconds=WEEK)
        return True

    assert together([deliver] * 8).count(True) == 1
    assert len(_attempts(database)) == 1


def test_what_is_still_to_be_delivered_is_counted(database: Database, listening: str):
    request_id = _cancel(database, listening)
    _cancel(database, listening)
    assert outbox.pending(database, request_id) == 1
    mine = next(each for each in rows.deliveries(database) if each.change_request_id == request_id)
    record(database, Result(mine.id, taken(), None))
    assert outbox.pending(database, request_id) == 0


class TestOrder:
    def test_events_go_out_as_they_happened(self, database: Database, listening: str):
        first, second = (rows.change_request(database, listening) for _ in "12")
        for request_id in (first, second, first):
            rows.shift(database, ChangeRequest, request_id, due_at=-1)
            tell(database, request_id, 2)
        sent = due(database, _endpoint(database).id)
        with database.transaction() as session:
            order = session.execute(
                select(WebhookDelivery.id, Event.seq)
                .join(Event, Event.id == WebhookDelivery.event_id)
                .order_by(Event.position)
            ).all()
        assert sent == [row.id for row in order]
        assert [row.seq for row in order] == [1, 2, 1, 2, 3, 4]

    @pytest.mark.fault(
        "webhooks out",
        "One event is refused",
        "the later ones of its request wait for it for a while, others go out",
        "until it was tried again 3 times, about 3 min",
    )
    def test_a_failed_one_holds_back_the_later_ones_of_its_request_for_a_while(
        self, database: Database, listening: str
    ):
        request_id, other = (rows.change_request(database, listening) for _ in "12")
        tell(database, request_id, 3)
        tell(database, other, 1)
        endpoint_id = _endpoint(database).id
        first, second, third, of_other = due(database, endpoint_id)
        for step in range(1, HOLDING_STEPS + 2):
            record(database, Result(first, refused(), 50.0))
            assert due(database, endpoint_id) == ([of_other] if step <= HOLDING_STEPS else [second, third, of_other])
            make_due(database, first)
        assert due(database, endpoint_id) == [first, second, third, of_other]

    def test_after_an_outage_everything_goes_out_at_once_and_in_order(self, database: Database, listening: str):
        tell(database, rows.change_request(database, listening), 5)
        endpoint_id = _endpoint(database).id
        sent = due(database, endpoint_id)
        for delivery_id in sent:
            record(database, Result(delivery_id, refused(), 80000.0))
        assert due(database, endpoint_id) == []
        make_due(database, sent[4])
        record(database, Result(sent[4], taken(at=3600), None))
        assert due(database, endpoint_id) == sent[:4]
        assert {rows.read(database, WebhookDelivery, one).step for one in sent[:4]} == {0}
        assert _endpoint(database).failing_since is None

    def test_an_event_that_fails_by_itself_keeps_its_schedule(self, database: Database, listening: str):
        bad, good = (rows.change_request(database, listening) for _ in "12")
        tell(database, bad, 1)
        tell(database, good, 3)
        endpoint_id = _endpoint(database).id
        poison, *others = due(database, endpoint_id)
        record(database, Result(poison, refused(), 80000.0))
        for minutes, delivery_id in enumerate(others, start=10):
            record(database, Result(delivery_id, taken(at=minutes * 60), None))
            if poison in due(database, endpoint_id):
                record(database, Result(poison, refused(at=minutes * 60), 80000.0))
        row = rows.read(database, WebhookDelivery, poison)
        assert (row.attempts, row.step) == (2, 1)
        assert due(database, endpoint_id) == []


class TestDisabling:
    OTHER = "https://other.example/hook"

    @pytest.fixture
    def pair(self, database: Database) -> tuple[str, str]:
        """Ids of two endpoints with something pending."""
        workspace = rows.workspace(database, webhooks=[(URL, SECRET), (self.OTHER, SECRET)])
        tell(database, rows.change_request(database, workspace), 3)
        with database.transaction() as session:
            by_url = {row.url: row.id for row in session.scalars(select(WebhookEndpoint))}
        return by_url[URL], by_url[self.OTHER]

    @pytest.mark.fault("webhooks out", "A receiver answers 410", "its endpoint is disabled", "at once")
    def test_a_receiver_that_is_gone_is_told_nothing_more(self, database: Database, pair: tuple[str, str]):
        gone, other = pair
        first, *rest = due(database, gone)
        assert not record(database, Result(first, refused(status=410), None))
        row = rows.read(database, WebhookEndpoint, gone)
        assert (row.state, row.disabled_reason, row.disabled_at) == ("disabled", "receiver_gone", rows.NOW)
        assert row.disabled_detail == "HTTP 410: no"
        assert row.due_at is None
        assert rows.read(database, WebhookDelivery, first).state == "failed"
        assert {rows.read(database, WebhookDelivery, one).state for one in rest} == {"dropped"}
        assert leases.acquire(database, WebhookEndpoint, gone) is None
        self._is_told(database, other, "receiver_gone", gone)

    def _is_told(self, database: Database, endpoint_id: str, code: str, about: str) -> None:
        newest = due(database, endpoint_id)[-1]
        with database.transaction() as session:
            event = session.scalars(
                select(Event)
                .join(WebhookDelivery, WebhookDelivery.event_id == Event.id)
                .where(WebhookDelivery.id == newest)
            ).one()
        body = json.loads(event.body)
        assert (event.type, event.change_request_id) == ("webhook_endpoint.disabled", None)
        assert event.actor == Actor.system("deliver").as_json()
        assert body["data"]["reason"]["code"] == code
        assert body["data"]["webhook_endpoint"]["id"] == about
        assert body["data"]["webhook_endpoint"]["host"] == "receiver.example"
        assert "/hook" not in event.body

    @pytest.mark.fault(
        "webhooks out",
        "A receiver fails for days",
        "its endpoint is disabled, what waits is kept",
        "5 days unless set otherwise",
    )
    def test_a_receiver_that_fails_for_days_is_disabled(self, database: Database, pair: tuple[str, str]):
        failing, other = pair
        first, second, third = due(database, failing)
        assert record(database, Result(first, refused(), 50.0), disable_seconds=86400)
        assert record(database, Result(second, refused(at=86399), 50.0), disable_seconds=86400)
        assert not record(database, Result(third, refused(at=86400, status=None), 50.0), disable_seconds=86400)
        row = rows.read(database, WebhookEndpoint, failing)
        assert (row.state, row.disabled_reason, row.disabled_detail) == ("disabled", "keeps_failing", "no")
        self._is_told(database, other, "keeps_failing", failing)
        with database.transaction() as session:
            states = session.scalars(select(WebhookDelivery.state).where(WebhookDelivery.endpoint_id == failing)).all()
        assert set(states) == {"dropped"}

    def test_one_success_starts_the_days_again(self, database: Database, pair: tuple[str, str]):
        failing, _ = pair
        first, second, third = due(database, failing)
        record(database, Result(first, refused(), 50.0), disable_seconds=86400)
        record(database, Result(second, taken(at=80000), 50.0), disable_seconds=86400)
        assert record(database, Result(third, refused(at=100000), 50.0), disable_seconds=86400)
        assert rows.read(database, WebhookEndpoint, failing).state == "active"

    def test_our_own_faults_say_nothing_about_the_receiver(self, database: Database, pair: tuple[str, str]):
        failing, _ = pair
        first, *_ = due(database, failing)
        unreadable = Attempt(rows.NOW, 0, None, "the key is missing", Fault.SECRET_UNREADABLE)
        record(database, Result(first, unreadable, 60.0), disable_seconds=0.1)
        assert rows.read(database, WebhookEndpoint, failing).failing_since is None
        assert rows.read(database, WebhookDelivery, first).step == 0
