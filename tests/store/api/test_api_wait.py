"""Clients that wait for a change, and those who wish to cancel."""

import signal
import threading
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from service.api.waiting import WaitingRoom
from service.domain.outcomes import stop
from service.domain.reasons import Reason
from service.domain.states import TERMINAL, State
from service.store import transitions
from service.store.changes import StateChanges
from service.store.database import Database
from service.store.tables import ChangeRequest
from service.wiring import ApiParts
from tests.support import rows
from tests.support.fakes import FixedClock
from tests.support.served_api import Api, serving
from tests.support.threads import in_background, wait_until

PATH = "/v1/change-requests"
NEVER = 3600.0


def fail(database: Database, request_id: str) -> None:
    taken = rows.lease(database, ChangeRequest, request_id)
    state = State(rows.read(database, ChangeRequest, request_id).state)
    transitions.apply(database, taken, state, stop(State.FAILED, Reason.CVM_NOT_FOUND), rows.NOW)


def wait_for_waiters(changes: StateChanges, count: int) -> None:
    wait_until(lambda: sum(map(len, list(changes._waiting.values()))) == count, f"{count} wait")


def listening(database: Database) -> list[int]:
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND left(query, 6) = 'LISTEN'"
    with database.engine.connect() as connection:
        return [row[0] for row in connection.exec_driver_sql(query)]


def test_a_wait_ends_with_the_change(api: Api, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"])
    with in_background(lambda: api.acme.get(f"{PATH}/{request_id}", params={"wait": 60})) as answer:
        wait_for_waiters(api.app.state.waiting.changes, 1)
        fail(database, request_id)
        assert answer.result(timeout=30).json()["state"] == "failed"


def test_a_wait_without_a_change_ends_in_time(api: Api, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"])
    answer = api.acme.get(f"{PATH}/{request_id}", params={"wait": 0.05})
    assert (answer.status_code, answer.json()["state"]) == (200, "received")


def test_a_change_before_the_wait_is_not_missed(api: Api, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"], State.PROPOSED)
    answer = api.acme.get(f"{PATH}/{request_id}", params={"wait": 60, "state": "received"})
    assert answer.json()["state"] == "proposed"


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_nobody_waits_for_what_has_ended(api: Api, database: Database, workspaces: dict[str, str], state: State):
    request_id = rows.change_request(database, workspaces["acme"], state)
    answer = api.acme.get(f"{PATH}/{request_id}", params={"wait": 60, "state": state.value})
    assert answer.json()["state"] == state.value


def test_more_than_the_seats_are_told_to_come_back(parts: ApiParts, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"])
    url = f"{PATH}/{request_id}"
    with serving(parts) as api:
        changes = api.app.state.waiting.changes
        api.app.state.waiting = WaitingRoom(changes, seats=1)
        with in_background(lambda: api.acme.get(url, params={"wait": 60})) as first:
            wait_for_waiters(changes, 1)
            refused = api.other.get(
                url.replace(request_id, rows.change_request(database, workspaces["other"])) + "?wait=1"
            )
            assert (refused.status_code, refused.json()["type"]) == (429, "/problems/too_many_waiting")
            assert int(refused.headers["retry-after"]) > 0
            assert api.acme.get(url).status_code == 200
            fail(database, request_id)
            assert first.result(timeout=30).status_code == 200
        assert api.other.get(PATH).status_code == 200


def test_many_wait_on_one_connection(api: Api, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"])
    changes: StateChanges = api.app.state.waiting.changes
    threads = [
        threading.Thread(target=changes.wait, args=(request_id,), kwargs={"from_state": "received", "seconds": NEVER})
        for _ in range(50)
    ]
    for thread in threads:
        thread.start()
    wait_for_waiters(changes, 50)
    assert len(listening(database)) == 1
    fail(database, request_id)
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert changes._waiting == {}


def test_notifications_alone_are_enough(database: Database, workspaces: dict[str, str]):
    ids = [rows.change_request(database, workspaces["acme"]) for _ in range(2)]
    with StateChanges(database, recheck_seconds=NEVER) as changes:
        wait_until(lambda: len(listening(database)) == 1, "the service listens")
        with in_background(lambda: changes.wait(ids[0], from_state="received", seconds=NEVER)) as waiting:
            wait_for_waiters(changes, 1)
            fail(database, ids[1])
            fail(database, ids[0])
            waiting.result(timeout=30)


def test_looking_alone_is_enough(database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"])
    changes = StateChanges(database, recheck_seconds=0.05)  # never entered: nobody listens
    with in_background(lambda: changes.wait(request_id, from_state="received", seconds=NEVER)) as waiting:
        wait_for_waiters(changes, 1)
        fail(database, request_id)
        waiting.result(timeout=30)


@pytest.mark.fault(
    "database",
    "The connection that hears of changes is lost",
    "it is made anew; who waits is told all the same",
    "1 s between tries",
)
def test_a_lost_connection_is_made_again_and_nothing_missed(database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"])
    with StateChanges(database, recheck_seconds=NEVER) as changes:
        wait_until(lambda: len(listening(database)) == 1, "the service listens")
        with in_background(lambda: changes.wait(request_id, from_state="received", seconds=NEVER)) as waiting:
            wait_for_waiters(changes, 1)
            (process,) = listening(database)
            url = database.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", [process])
            fail(database, request_id)  # maybe while nobody listens
            waiting.result(timeout=30)


def test_closing_ends_all_waits(database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"])
    with StateChanges(database, recheck_seconds=NEVER) as changes:
        with in_background(lambda: changes.wait(request_id, from_state="received", seconds=NEVER)) as waiting:
            wait_for_waiters(changes, 1)
            changes.close()
            waiting.result(timeout=30)
        changes.wait(request_id, from_state="received", seconds=NEVER)
    wait_until(lambda: not listening(database), "the connection is closed")


def test_a_server_that_is_told_to_stop_answers_those_who_wait(
    parts: ApiParts, database: Database, workspaces: dict[str, str]
):
    request_id = rows.change_request(database, workspaces["acme"])
    with serving(parts) as api, in_background(lambda: api.acme.get(f"{PATH}/{request_id}?wait=60")) as answer:
        wait_for_waiters(api.app.state.waiting.changes, 1)
        api.server.handle_exit(signal.SIGTERM, None)
        assert answer.result(timeout=10).json()["state"] == "received"


def test_a_cancel_is_a_wish_that_rings(api: Api, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"], State.PROPOSED)
    rows.shift(database, ChangeRequest, request_id, due_at=3600)
    answer = api.acme.post(f"{PATH}/{request_id}/cancel")
    assert answer.status_code == 202
    shown = answer.json()
    assert (shown["state"], shown["cancel_requested_at"]) == ("proposed", "2026-03-01T12:00:00Z")
    assert shown["approval"] is not None
    assert rows.is_due(database, ChangeRequest, request_id)


def test_to_cancel_twice_changes_nothing(parts: ApiParts, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"])
    clock = FixedClock(rows.NOW)
    with serving(replace(parts, clock=clock)) as api:
        first = api.acme.post(f"{PATH}/{request_id}/cancel")
        clock.advance(hours=1)
        again = api.acme.post(f"{PATH}/{request_id}/cancel")
    assert again.status_code == 202
    assert again.json()["cancel_requested_at"] == first.json()["cancel_requested_at"]


def test_what_was_cancelled_may_be_cancelled_again(api: Api, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"], State.CANCELLED)
    answer = api.acme.post(f"{PATH}/{request_id}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")


@pytest.mark.parametrize("state", sorted(TERMINAL - {State.CANCELLED}))
def test_what_has_ended_cannot_be_cancelled(api: Api, database: Database, workspaces: dict[str, str], state: State):
    request_id = rows.change_request(database, workspaces["acme"], state)
    answer = api.acme.post(f"{PATH}/{request_id}/cancel")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/already_ended")


@pytest.mark.parametrize("state", [State.REGISTERED, State.COMMITTED])
def test_once_the_commit_started_it_is_too_late_to_cancel(
    api: Api, database: Database, workspaces: dict[str, str], state: State
):
    request_id = rows.change_request(
        database,
        workspaces["acme"],
        state,
        commit_attempt_id="attempt",
        commit_attempted_at=rows.NOW + timedelta(seconds=1),
    )
    answer = api.acme.post(f"{PATH}/{request_id}/cancel")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/commit_started")
    assert rows.read(database, ChangeRequest, request_id).cancel_requested_at is None
