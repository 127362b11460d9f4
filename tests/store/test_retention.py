"""Old events and deliveries go: whole, never while they live or are to be delivered, and the feed says so."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.domain.states import State
from service.store import feed, retention, webhook_endpoints, workspace_settings
from service.store.audit import Checked, Wanted, check
from service.store.database import Database
from service.store.feed import Place
from service.store.tables import (
    ChangeRequest,
    Event,
    WebhookAttempt,
    WebhookDelivery,
    Workspace,
)
from service.store.webhook_endpoints import NewEndpoint
from service.store.webhook_history import Range, replay
from service.store.workspace_settings import Changes
from tests.support import rows
from tests.support.old_events import age, told
from tests.support.threads import together

HOOK = "https://receiver.example/hook"
SECRET = SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def _keep(database: Database, workspace_id: str, **days: int | None) -> None:
    columns = {f"{kind}_retention_days": value for kind, value in days.items()}
    workspace_settings.change(database, workspace_id, Changes(columns), rows.ACTOR)


def _endpoint(database: Database, workspace_id: str) -> str:
    return webhook_endpoints.create(database, workspace_id, NewEndpoint(HOOK, SECRET), rows.ACTOR).id


def _delivered(database: Database, *, but: int = 0) -> None:
    """All deliveries arrived with an attempt each, but so many of the newest."""
    with database.transaction() as session:
        ids = session.scalars(select(WebhookDelivery.id).order_by(WebhookDelivery.event_position)).all()
        for delivery_id in ids[: len(ids) - but]:
            row = session.get_one(WebhookDelivery, delivery_id)
            row.state, row.due_at = "delivered", None
            session.add(WebhookAttempt(delivery_id=delivery_id, attempted_at=rows.NOW, duration_ms=1))


def _count(database: Database, table: type[Any]) -> int:
    with database.transaction() as session:
        return session.scalars(select(func.count()).select_from(table)).one()


def test_the_events_of_a_request_go_whole_a_year_after_its_end(database: Database, workspace: str):
    _endpoint(database, workspace)
    ended = told(database, workspace, State.CANCELLED)
    live = told(database, workspace, State.PROPOSED)
    _delivered(database)
    age(database, 364)
    _keep(database, workspace, delivery=None)
    assert retention.forget(database) == 0

    age(database, 366)
    assert retention.forget(database) == 3 + 2, "three events of a request, two acts"

    assert rows.events(database, ended) == []
    assert rows.read(database, ChangeRequest, ended).events_deleted_at is not None
    assert [event.seq for event in rows.events(database, live)] == [1, 2, 3]
    assert (_count(database, WebhookDelivery), _count(database, WebhookAttempt)) == (3, 3)
    assert retention.forget(database) == 0


@pytest.mark.parametrize(("days", "gone"), [(None, 0), (400, 0), (30, 3 + 1)])
def test_a_workspace_says_how_long(database: Database, workspace: str, days: int | None, gone: int):
    told(database, workspace, State.CANCELLED)
    other = rows.workspace(database, "other")
    _keep(database, other, event=None)
    kept = told(database, other, State.CANCELLED)
    _keep(database, workspace, event=days)
    age(database, 399)
    assert retention.forget(database) == gone
    assert len(rows.events(database, kept)) == 3


def test_what_is_to_be_delivered_stays_with_all_events_of_its_request(database: Database, workspace: str):
    _endpoint(database, workspace)
    request_id = told(database, workspace, State.CANCELLED)
    _delivered(database, but=1)
    age(database, 400)
    assert retention.forget(database) == 2 + 1, "deliveries that ended are kept for 90 days, and acts for 365"
    assert len(rows.events(database, request_id)) == 3
    assert [row.state for row in rows.deliveries(database)] == ["pending"]

    _delivered(database)
    assert retention.forget(database) == 4
    assert (rows.events(database, request_id), rows.deliveries(database)) == ([], [])


def test_an_event_that_is_asked_for_again_keeps_its_request(database: Database, workspace: str):
    """Asked for between the look for old requests and the locks on their events."""
    endpoint = _endpoint(database, workspace)
    request_id = told(database, workspace, State.CANCELLED)
    _delivered(database)
    age(database, 400)
    wanted = Range(rows.NOW - timedelta(days=1000), None, undelivered_only=False)
    replay(database, workspace, endpoint, wanted, rows.ACTOR)
    with database.transaction() as session:
        assert retention.delete_events_of(session, [request_id]) == 0
    assert len(rows.events(database, request_id)) == 3


def test_events_that_are_being_deleted_are_not_sent_again(database: Database, workspace: str):
    endpoint = _endpoint(database, workspace)
    request_id = told(database, workspace, State.CANCELLED)
    _delivered(database)
    with Session(database.engine) as deleting:
        assert retention.delete_events_of(deleting, [request_id]) == 3
        done = replay(database, workspace, endpoint, Range(rows.NOW, None, undelivered_only=False), rows.ACTOR)
        assert done is not None
        assert done.deliveries == 0
        deleting.commit()
    assert rows.deliveries(database) == []


def _checked(database: Database, name: str) -> Checked:
    """What became of a chain."""
    (found,) = (one for one in check(database, Wanted()) if isinstance(one, Checked) and one.name == name)
    return found


def _acts(database: Database, workspace: str) -> list[str]:
    with database.transaction() as session:
        acts = select(Event.type).where(Event.workspace_id == workspace, Event.change_request_id.is_(None))
        return list(session.scalars(acts.order_by(Event.seq)))


def test_what_is_left_of_the_audit_log_is_verified(database: Database, workspace: str):
    """Requests go whole; acts from the beginning of their chain, but the last."""
    endpoint = _endpoint(database, workspace)
    ended = told(database, workspace, State.CANCELLED)
    live = told(database, workspace, State.PROPOSED)
    _delivered(database)
    webhook_endpoints.delete(database, workspace, endpoint, rows.ACTOR)
    assert _acts(database, workspace) == ["workspace.created", "webhook_endpoint.created", "webhook_endpoint.deleted"]
    age(database, 400)
    assert retention.forget(database) == 3 + 2 + 6, "three events of a request, two acts, six deliveries"
    assert _acts(database, workspace) == ["webhook_endpoint.deleted"]
    assert _checked(database, workspace) == Checked(workspace, 1, begins=3)
    assert _checked(database, ended) == Checked(ended, 0, removed=True)
    assert _checked(database, live) == Checked(live, 3)

    _keep(database, workspace, event=None)
    assert retention.forget(database) == 0
    assert _checked(database, workspace) == Checked(workspace, 2, begins=3)


def test_an_act_that_is_kept_keeps_those_behind_it(database: Database, workspace: str):
    endpoint = _endpoint(database, workspace)
    for _ in range(2):
        webhook_endpoints.send_test(database, workspace, endpoint, rows.NOW, rows.ACTOR)
    _delivered(database, but=2)
    _keep(database, workspace, delivery=None)
    age(database, 400)
    assert retention.forget(database) == 2, "the first test is still to be delivered"
    kept = ["webhook_endpoint.test", "webhook_endpoint.test", "workspace.updated"]
    assert _acts(database, workspace) == kept
    assert _checked(database, workspace) == Checked(workspace, 3, begins=3)

    _delivered(database, but=1)
    assert retention.forget(database) == 1
    assert _acts(database, workspace) == kept[1:]
    _delivered(database)
    assert retention.forget(database) == 1
    assert (_acts(database, workspace), _count(database, WebhookDelivery)) == (kept[2:], 0)
    assert _checked(database, workspace) == Checked(workspace, 1, begins=5)


def test_acts_younger_than_the_workspace_keeps_stay_in_every_workspace(database: Database, workspace: str):
    other = rows.workspace(database, "other")
    for of, days in ((workspace, 30), (other, 500)):
        _keep(database, of, event=days)
        _keep(database, of, event=days, delivery=days)
    age(database, 399)
    assert retention.forget(database) == 2
    assert [_checked(database, of).begins for of in (workspace, other)] == [3, 1]


def test_two_that_delete_acts_at_once_leave_no_gap(database: Database, workspace: str):
    for days in range(30, 42):
        _keep(database, workspace, delivery=days)
    age(database, 400)
    found = together([lambda: retention.forget(database)] * 4)
    assert sum(found) == 12
    assert _checked(database, workspace) == Checked(workspace, 1, begins=13)


def test_two_that_delete_at_once_take_different_rows(database: Database, workspace: str):
    for _ in range(3):
        told(database, workspace, State.CANCELLED)
    age(database, 400)
    with Session(database.engine) as first:
        ids = first.scalars(select(ChangeRequest.id).limit(1).with_for_update()).all()
        assert retention.forget(database) == 6
        first.rollback()
    assert len(rows.events(database, ids[0])) == 3
    assert retention.forget(database) == 3


def test_many_batches_are_taken_in_one_run(database: Database, workspace: str):
    for _ in range(retention.REQUESTS + 1):
        told(database, workspace, State.CANCELLED, 1)
    age(database, 400)
    assert retention.forget(database) == retention.REQUESTS + 1


def test_the_feed_knows_up_to_where_it_has_holes(database: Database, workspace: str):
    other = rows.workspace(database, "other")
    told(database, workspace, State.CANCELLED)
    with database.transaction() as session:
        reached = feed.newest(session, workspace)
        assert feed.forgotten(session, workspace) == Place()
    told(database, workspace, State.PROPOSED)
    age(database, 400)
    retention.forget(database)
    with database.transaction() as session:
        assert feed.forgotten(session, workspace) == reached
        assert feed.forgotten(session, other) == Place()
        assert feed.newest(session, workspace) > reached


def test_columns_that_are_not_settable_are_refused(database: Database, workspace: str):
    with pytest.raises(ValueError, match="blocked_reason"):
        workspace_settings.change(database, workspace, Changes({"blocked_reason": "x"}), rows.ACTOR)
    assert isinstance(rows.read(database, Workspace, workspace).created_at, datetime)
