"""Accounts are searched by one worker at a time; what did not arrive is asked for, what is wrong is told once."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from service.domain.actors import Actor
from service.domain.errors import Unauthorized, Unreachable
from service.domain.phala_facts import Hook
from service.domain.reasons import Reason
from service.domain.recovery import ASKED_AGAIN_AFTER, ASKS_PER_EVENT, PENDING_APPROVAL, unknown_update
from service.domain.states import State
from service.store import audit, inbound, recoveries
from service.store.database import Database
from service.store.leases import LeaseKeeper
from service.store.tables import Event, MissedEvent, PhalaRecovery, WorkspaceAlert
from service.wiring import Timings, WorkerParts
from tests.support import heard, rows
from tests.support.builders import VM_UUID
from tests.support.fake_phala import FakeAccounts, FakePhala
from tests.support.fakes import FakeSigner, FixedClock
from tests.support.threads import together
from workers import serve

SECRET = SecretStr(heard.SECRET)
URL = "https://countersign.example/v1/hooks/phala/acme"
HOOK = "whk_1"


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(rows.NOW)


@pytest.fixture
def phala(clock: FixedClock) -> FakePhala:
    """Phala Cloud with our webhook."""
    phala = FakePhala(clock)
    phala.hooks.append(Hook(HOOK, URL, enabled=True, events=frozenset({PENDING_APPROVAL})))
    return phala


@pytest.fixture
def listening(database: Database) -> str:
    """A workspace that takes Phala Cloud's webhooks, and whose own go somewhere."""
    workspace_id = rows.workspace(
        database, phala_webhook_secrets=[SECRET], webhooks=[("https://ops.example/hook", SecretStr("whsec_c2VjcmV0"))]
    )
    assert recoveries.ring_due(database, 10) == [workspace_id]
    return workspace_id


@pytest.fixture
def parts(database: Database, clock: FixedClock, phala: FakePhala) -> WorkerParts:
    accounts: Any = FakeAccounts(phala)
    poster: Any = None
    return WorkerParts(
        database=database,
        clock=clock,
        keeper=LeaseKeeper(database),
        chains={},
        queues={},
        signer=FakeSigner(),
        poster=poster,
        phala=accounts,
        timings=Timings(observe=5, safe_poll=60, recheck=600, track=5, recover=600),
    )


def look(parts: WorkerParts, workspace_id: str, *, later: timedelta = timedelta(0)) -> None:
    """The next look, so much later."""
    parts.clock.advance(seconds=later.total_seconds())  # type: ignore[attr-defined]
    rows.shift(parts.database, PhalaRecovery, workspace_id, due_at=0)
    serve.serve_recovery(parts, workspace_id)


def told(database: Database) -> list[str]:
    """Codes of the alerts, oldest first."""
    with database.transaction() as session:
        query = select(Event.body).where(Event.type == "workspace.alert").order_by(Event.position)
        return [json.loads(body)["data"]["alert"]["code"] for body in session.scalars(query)]


def asks(database: Database) -> dict[str, int]:
    with database.transaction() as session:
        return {row.event_id: row.asks for row in session.scalars(select(MissedEvent))}


def test_who_takes_no_webhooks_is_not_searched(database: Database, parts: WorkerParts, phala: FakePhala):
    workspace_id = rows.workspace(database)
    assert recoveries.ring_due(database, 10) == []
    rows.workspace(database, phala_webhook_secrets=[SECRET])
    assert [recoveries.ring_due(database, 10) for _ in range(2)] == [[workspace_id], []]
    phala.hooks.clear()
    serve.serve_recovery(parts, workspace_id)
    rows.workspace(database)
    look(parts, workspace_id)
    assert rows.due_in(database, PhalaRecovery, workspace_id) is None
    with database.transaction() as session:
        assert session.scalars(select(WorkspaceAlert)).all() == []
    rows.workspace(database, phala_webhook_secrets=[SECRET])
    assert recoveries.ring_due(database, 10) == [workspace_id]
    assert phala.calls == ["webhooks"]


@pytest.mark.fault(
    "workers",
    "Two workers are woken to search one account at Phala Cloud",
    "one does, each missed event is asked for once",
    "no delay",
)
def test_two_workers_search_an_account_once(database: Database, listening: str, parts: WorkerParts, phala: FakePhala):
    phala.delivers = False
    phala.send(HOOK)
    together([lambda: serve.serve_recovery(parts, listening)] * 2)
    assert (phala.calls.count("webhooks"), phala.calls.count("resend")) == (1, 1)
    assert 590 < (rows.due_in(database, PhalaRecovery, listening) or 0) <= 600
    assert rows.read(database, PhalaRecovery, listening).detail is None


def test_a_missed_event_is_asked_for_until_it_arrives(
    database: Database, listening: str, parts: WorkerParts, phala: FakePhala
):
    phala.delivers = False
    missed = phala.send(HOOK)
    heard.hear(database, listening, event_id=phala.send(HOOK))
    look(parts, listening)
    look(parts, listening, later=timedelta(minutes=10))
    assert asks(database) == {missed: 1}
    phala.delivers = True
    look(parts, listening, later=ASKED_AGAIN_AFTER)
    look(parts, listening, later=ASKED_AGAIN_AFTER)
    assert asks(database) == {missed: 2}
    look(parts, listening, later=timedelta(days=20))
    assert asks(database) == {}
    assert told(database) == []


def test_asking_is_stored_before_it_is_done(database: Database, listening: str, parts: WorkerParts, phala: FakePhala):
    phala.delivers = False
    missed = phala.send(HOOK)
    phala.fail("resend", Unreachable("timed out", reason=Reason.PHALA_UNREACHABLE, outcome_unknown=True))
    look(parts, listening)
    assert asks(database) == {missed: 1}
    row = rows.read(database, PhalaRecovery, listening)
    assert (row.detail, row.attempts, row.settled_to) == ("timed out", 1, None)


@pytest.mark.fault(
    "webhooks in",
    "An event of Phala Cloud never arrives, however often it is asked for",
    "`workspace.alert` with `events_lost`, once",
    "five times 75 minutes",
)
def test_an_event_that_never_arrives_is_told_once(
    database: Database, listening: str, parts: WorkerParts, phala: FakePhala
):
    phala.delivers = False
    missed = phala.send(HOOK)
    for _ in range(ASKS_PER_EVENT + 3):
        look(parts, listening, later=ASKED_AGAIN_AFTER)
    assert asks(database) == {missed: ASKS_PER_EVENT}
    assert told(database) == ["events_lost"]
    assert [row.state for row in rows.deliveries(database)] == ["pending"], "the workspace's endpoint gets it"
    with database.transaction() as session:
        event = session.scalars(select(Event).where(Event.type == "workspace.alert")).one()
    assert event.actor == Actor.system("recover").as_json()
    (acts,) = [step for step in audit.check(database, audit.Wanted()) if isinstance(step, audit.Checked)]
    assert (acts.name, acts.events, acts.broken) == (listening, event.seq, None), "it is in the workspace's chain"


@pytest.mark.fault(
    "Phala Cloud",
    "It answers 429 to the search for missed events",
    "the search rests as long as it was asked to",
    "`Retry-After`, up to a day",
)
def test_what_phala_cloud_asks_for_is_obeyed(database: Database, listening: str, parts: WorkerParts, phala: FakePhala):
    phala.fail("webhooks", Unreachable("HTTP 429", reason=Reason.PHALA_UNREACHABLE, retry_after=7200))
    look(parts, listening)
    assert 7100 < (rows.due_in(database, PhalaRecovery, listening) or 0) <= 7200


@pytest.mark.fault(
    "webhooks in",
    "The webhook at Phala Cloud is deleted",
    "`workspace.alert` with `webhook_not_registered`",
    "one `COUNTERSIGN_RECOVER_SECONDS`",
)
def test_an_account_without_our_webhook_is_told_and_again_if_it_comes_back(
    database: Database, listening: str, parts: WorkerParts, phala: FakePhala
):
    (ours,) = phala.hooks
    phala.hooks.clear()
    for _ in range(2):
        look(parts, listening)
    phala.hooks.append(ours)
    look(parts, listening)
    phala.fail("webhooks", Unauthorized("HTTP 403"))
    look(parts, listening)
    phala.hooks.clear()
    look(parts, listening)
    assert told(database) == ["webhook_not_registered", "webhooks_not_listed", "webhook_not_registered"]


@pytest.fixture
def app_is_known(database: Database, listening: str) -> None:
    """Something was asked here about the app of Phala Cloud's CVM."""
    rows.change_request(database, listening, State.CANCELLED)


@pytest.mark.usefixtures("app_is_known")
def test_an_update_that_nobody_here_knows_of_is_told_and_nothing_else(
    database: Database, listening: str, parts: WorkerParts, phala: FakePhala
):
    phala.prepare(VM_UUID, {"docker_compose_file": "services: {}\n"})
    patience = unknown_update(rows.APP, VM_UUID, rows.COMPOSE_HASH).patience
    look(parts, listening)
    assert told(database) == [], "its webhook may be on the way"
    for _ in range(2):
        look(parts, listening, later=patience)
    assert told(database) == ["unknown_update"]
    with database.transaction() as session:
        assert session.scalar(select(Event.change_request_id).where(Event.type == "workspace.alert")) is None
    assert heard.requests_of(database) == []


@pytest.mark.usefixtures("app_is_known")
@pytest.mark.parametrize("known", ["by a request", "by a webhook", "by a prepare under way"])
def test_an_update_that_somebody_here_knows_of_is_not_told(
    database: Database, listening: str, parts: WorkerParts, phala: FakePhala, known: str
):
    patch = {"docker_compose_file": "services: {}\n"}
    prepared = {"vm_uuid": VM_UUID, "compose_hash": phala.hash_of(patch)}
    if known == "by a request":
        rows.change_request(database, listening, State.CANCELLED, **prepared)
    elif known == "by a prepare under way":
        rows.change_request(database, listening, vm_uuid=VM_UUID, prepare_attempted_at=rows.NOW)
    else:
        prepare = heard.told(compose_hash=prepared["compose_hash"])
        inbound.hear(database, listening, replace(prepare, vm_uuid=VM_UUID), rows.NOW)
    phala.prepare(VM_UUID, patch)
    for _ in range(2):
        look(parts, listening, later=timedelta(hours=5))
    assert told(database) == []
    assert phala.calls.count("pending_updates") == 2


@pytest.mark.usefixtures("app_is_known")
def test_pending_updates_that_cannot_be_listed_keep_no_event_from_being_asked_for(
    database: Database, listening: str, parts: WorkerParts, phala: FakePhala
):
    phala.delivers = False
    missed = phala.send(HOOK)
    phala.fail("pending_updates", Unreachable("HTTP 429", reason=Reason.PHALA_UNREACHABLE, retry_after=900))
    look(parts, listening)
    assert asks(database) == {missed: 1}
    row = rows.read(database, PhalaRecovery, listening)
    assert (row.detail, row.attempts) == ("HTTP 429", 1)
    assert row.settled_to is not None
    assert 800 < (rows.due_in(database, PhalaRecovery, listening) or 0) <= 900


def test_apps_take_turns(database: Database, listening: str):
    apps = [f"0x{number:040x}" for number in range(1, recoveries.APPS_PER_LOOK + 3)]
    for app_contract in apps:
        rows.change_request(database, listening, State.CANCELLED, app_contract=app_contract)
    looked_at: list[str] = []
    for _ in range(3):
        rows.shift(database, PhalaRecovery, listening, due_at=0)
        lease = rows.lease(database, PhalaRecovery, listening)
        account = recoveries.account(database, lease)
        assert account is not None
        looked_at += account.apps
        found = recoveries.Recovery(None, (), frozenset(), account.apps)
        recoveries.apply(database, lease, found, wait_seconds=600, now=rows.NOW)
    assert looked_at == apps + apps[: recoveries.APPS_PER_LOOK]
