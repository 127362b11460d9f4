"""The audit log in the database: append-only, chained, followed and exported."""

import json
from base64 import b64encode
from collections.abc import Sequence
from datetime import timedelta
from functools import partial

import pytest
from psycopg.errors import InsufficientPrivilege
from pydantic import SecretStr
from sqlalchemy import Engine, event, select, text
from sqlalchemy.exc import ProgrammingError

from service.domain.actors import Actor, ActorKind
from service.domain.acts import Act
from service.domain.audit import Broken, Chains, canonical, link_of_json
from service.domain.outcomes import Advance, Notice, Wait
from service.domain.reasons import Reason
from service.domain.states import State
from service.store import acts, audit, events, transitions, webhook_endpoints
from service.store.audit import Checked, Wanted
from service.store.database import Database
from service.store.feed import Place
from service.store.tables import ActChain, ChangeRequest, Event
from service.store.webhook_endpoints import NewEndpoint
from tests.support import rows
from tests.support.rows import tell
from tests.support.threads import together

HOOK = ("https://receiver.example/hook", SecretStr("whsec_c2VjcmV0"))


def checked(database: Database, wanted: Wanted | None = None, *, page: int = 1000) -> dict[str, Checked]:
    """What became of each chain, by its name."""
    found = [step for step in audit.check(database, wanted or Wanted(), page=page) if isinstance(step, Checked)]
    assert len({one.name for one in found}) == len(found)
    return {one.name: one for one in found}


def force(database: Database, *statements: str, **values: object) -> None:
    """What only the owner of the tables can do."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE events DISABLE TRIGGER USER")
        for statement in statements:
            connection.execute(text(statement), values)
        connection.exec_driver_sql("ALTER TABLE events ENABLE TRIGGER USER")


@pytest.fixture
def request_id(database: Database, workspace: str) -> str:
    """A change request with five events."""
    made = rows.change_request(database, workspace)
    tell(database, made, 5)
    return made


class TestAppendOnly:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE events SET body = 'x'",
            "UPDATE events SET created_at = now()",
            "UPDATE events SET hash = NULL, previous_hash = NULL",
            "DELETE FROM events",
            "TRUNCATE events CASCADE",
            "SET LOCAL countersign.retention = 'on'; UPDATE events SET body = 'x'",
            "SET LOCAL countersign.retention = 'on'; TRUNCATE events CASCADE",
            "SET LOCAL countersign.retention = 'off'; DELETE FROM events",
        ],
    )
    def test_the_database_refuses(self, database: Database, request_id: str, statement: str):
        with pytest.raises(ProgrammingError, match="audit log") as refused, database.engine.begin() as connection:
            connection.exec_driver_sql(statement)
        assert isinstance(refused.value.orig, InsufficientPrivilege)
        assert checked(database)[request_id] == Checked(request_id, 5)

    def test_retention_may_delete_and_nobody_after_it(self, database: Database, request_id: str):
        with database.transaction() as session:
            audit.allow_deletion(session)
            session.execute(text("DELETE FROM events WHERE change_request_id = :id"), {"id": request_id})
        with pytest.raises(ProgrammingError, match="audit log"), database.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM events")
        assert checked(database)[request_id].broken == Broken(1, "is missing")
        force(database, "UPDATE change_requests SET events_deleted_at = now() WHERE id = :id", id=request_id)
        assert checked(database)[request_id] == Checked(request_id, 0, removed=True)


class TestChain:
    def test_each_has_the_hash_of_the_one_before_and_its_body_tells_both(self, database: Database, request_id: str):
        found = rows.events(database, request_id)
        assert [one.previous_hash for one in found] == ["0" * 64, *(one.hash for one in found[:-1])]
        assert len({one.hash for one in found}) == 5
        for one in found:
            body = json.loads(one.body)
            assert (body["previous_hash"], body["hash"]) == (one.previous_hash, one.hash)
            assert body["actor"] == one.actor == rows.ACTOR.as_json()
            assert one.origin == {"host": "test.example"}
        row = rows.read(database, ChangeRequest, request_id)
        assert (row.last_event_seq, row.last_chained_seq, row.last_event_hash) == (5, 5, found[-1].hash)

    def test_text_that_cannot_be_stored_is_hashed_as_it_is_stored(self, database: Database, request_id: str):
        tell(database, request_id, message="half \ud83d a pair, NUL \0, \u2028 and \U0001f600")
        assert checked(database)[request_id] == Checked(request_id, 6)

    def test_many_writers_make_one_chain(self, database: Database, workspace: str, request_id: str):
        together([lambda: tell(database, request_id, 5)] * 6)
        together([lambda: _act(database, workspace)] * 6)
        found = checked(database)
        assert found[request_id] == Checked(request_id, 35)
        assert found[workspace] == Checked(workspace, 7)

    def test_acts_on_endpoints_wait_for_each_other_in_one_order(self, database: Database, workspace: str):
        """The file locks all endpoints, a change one of them, and all of them the end of the chain."""
        keys = [SecretStr(f"whsec_{b64encode(bytes([number] * 32)).decode()}") for number in range(24)]
        urls = [f"https://receiver.example/{number}" for number in range(4)]
        rows.workspace(database, webhooks=[(url, keys[0]) for url in urls[:2]])
        made = [
            webhook_endpoints.create(database, workspace, NewEndpoint(url, keys[0]), rows.ACTOR).id for url in urls[2:]
        ]
        until = rows.NOW + timedelta(days=1)

        def rotate(endpoint_id: str, key: SecretStr) -> None:
            webhook_endpoints.rotate(database, workspace, endpoint_id, key, until=until, actor=rows.ACTOR)

        def apply(key: SecretStr) -> None:
            rows.workspace(database, webhooks=[(url, key) for url in urls[:2]])

        partial(webhook_endpoints.send_test, database, workspace)
        together(
            [
                *(partial(rotate, made[number % 2], keys[number]) for number in range(1, 9)),
                *(partial(apply, key) for key in keys[9:17]),
                *(
                    partial(webhook_endpoints.send_test, database, workspace, one, rows.NOW, rows.ACTOR)
                    for one in made * 2
                ),
            ]
        )
        together([partial(webhook_endpoints.delete, database, workspace, one, rows.ACTOR) for one in made * 2])
        # Made, two by the file, two by the API; 8 rotated, 8 times two by the file; 4 tests; 2 deleted.
        assert checked(database)[workspace] == Checked(workspace, 5 + 8 + 16 + 4 + 2)

    def test_what_is_rolled_back_leaves_no_gap(self, database: Database, workspace: str, request_id: str):
        with database.transaction() as session:
            row = session.get_one(ChangeRequest, request_id, with_for_update=True)
            events.append(database, session, row, name=Notice.ALERT, actor=rows.ACTOR, now=rows.NOW)
            acts.append(database, session, workspace, Act.KEY_CREATED, actor=rows.ACTOR, data={})
            session.rollback()
        tell(database, request_id)
        _act(database, workspace)
        found = checked(database)
        assert (found[request_id].events, found[workspace].events) == (6, 2)
        assert not any(one.broken for one in found.values())

    def test_a_whole_step_is_in_it_with_who_did_what(self, database: Database, workspace: str):
        proposed = rows.change_request(database, workspace, State.PROPOSED)
        lease = rows.lease(database, ChangeRequest, proposed)
        signed = {"approvals": 1, "threshold": 2, "owners": [rows.SAFE], "missing": []}
        notices = ((Notice.APPROVAL_ADDED, signed), (Notice.ALERT, {"message": "x"}))
        transitions.apply(
            database, lease, State.PROPOSED, Wait(0, Reason.WAITING_FOR_OWNERS, notices=notices), rows.NOW
        )
        lease = rows.lease(database, ChangeRequest, proposed)
        transitions.apply(database, lease, State.PROPOSED, Advance(State.CANCELLED), rows.NOW)
        assert [one.actor for one in rows.events(database, proposed)] == [
            Actor(ActorKind.SAFE_OWNERS, owners=(rows.SAFE,)).as_json(),
            Actor.system("await").as_json(),
            Actor.system("await").as_json(),
        ]
        assert checked(database)[proposed] == Checked(proposed, 3)


def _act(database: Database, workspace: str) -> None:
    with database.transaction() as session:
        acts.append(database, session, workspace, Act.KEY_CREATED, actor=rows.ACTOR, data={})


_MINE = "change_request_id = :id"
_NEXT = """
    INSERT INTO events (id, workspace_id, change_request_id, seq, type, state, body, created_at)
    SELECT 'evt_x', workspace_id, change_request_id, 6, type, state, body, created_at FROM events
    WHERE mine AND seq = 5
"""
ALTERATIONS: dict[str, tuple[Sequence[str], int, str]] = {
    "body": (
        ["UPDATE events SET body = replace(body, 'received', 'prepared') WHERE mine AND seq = 3"],
        3,
        "was altered",
    ),
    "actor": (['UPDATE events SET actor = actor || \'{"name": "x"}\' WHERE mine AND seq = 3'], 3, "was altered"),
    "origin": (["UPDATE events SET origin = NULL WHERE mine AND seq = 3"], 3, "was altered"),
    "time": (["UPDATE events SET created_at = created_at - interval '1 us' WHERE mine AND seq = 3"], 3, "was altered"),
    "hash": (["UPDATE events SET hash = repeat('a', 64) WHERE mine AND seq = 3"], 3, "was altered"),
    "no hash": (
        ["UPDATE events SET hash = NULL, previous_hash = NULL WHERE mine AND seq = 3"],
        4,
        "another previous hash",
    ),
    "cut out": (["DELETE FROM events WHERE mine AND seq = 3"], 3, "is missing"),
    "first": (["DELETE FROM events WHERE mine AND seq = 1"], 1, "is missing"),
    "last": (["DELETE FROM events WHERE mine AND seq = 5"], 5, "is missing"),
    "all": (["DELETE FROM events WHERE mine"], 1, "is missing"),
    "last, hidden": (
        ["DELETE FROM events WHERE mine AND seq = 5", "UPDATE change_requests SET last_event_seq = 4 WHERE id = :id"],
        4,
        "was cut off",
    ),
    "one added": ([_NEXT], 6, "was added by other means"),
}
"""What is done to the events of a request (``mine``), and at which number which fault is found."""


class TestVerifying:
    @pytest.mark.parametrize(("statements", "seq", "what"), ALTERATIONS.values(), ids=ALTERATIONS.keys())
    def test_what_was_done_by_hand_is_found(
        self, database: Database, request_id: str, statements: Sequence[str], seq: int, what: str
    ):
        other = rows.change_request(database, rows.workspace(database, "other"))
        tell(database, other, 5)
        force(database, *(one.replace("mine", _MINE) for one in statements), id=request_id)
        found = checked(database)
        broken = found.pop(request_id).broken
        assert broken is not None
        assert broken.seq == seq
        assert what in broken.what
        assert found[other] == Checked(other, 5)
        assert not any(one.broken for one in found.values())

    def test_a_workspaces_acts_are_followed_too(self, database: Database, workspace: str):
        for _ in range(3):
            _act(database, workspace)
        force(database, "UPDATE events SET type = 'api_key.revoked' WHERE change_request_id IS NULL AND seq = 2")
        assert checked(database)[workspace].broken == Broken(2, "was altered: it does not have the hash that is stored")
        force(database, "DELETE FROM events WHERE change_request_id IS NULL AND seq <= 2")
        found = checked(database)[workspace]
        assert (found.broken, found.begins, found.events) == (None, 3, 2)
        force(database, "DELETE FROM events WHERE change_request_id IS NULL")
        assert checked(database)[workspace].broken == Broken(1, "is missing")

    def test_only_what_is_wanted_is_followed(self, database: Database, workspace: str, request_id: str):
        second = rows.change_request(database, workspace, updated_at=rows.NOW + timedelta(days=1))
        other = rows.workspace(database, "other")
        assert checked(database).keys() == {workspace, other, request_id, second}
        assert checked(database, Wanted(workspace_id=workspace)).keys() == {workspace, request_id, second}
        assert checked(database, Wanted(change_request_id=request_id)).keys() == {request_id}
        late = Wanted(since=rows.NOW + timedelta(hours=1))
        assert checked(database, late).keys() == {workspace, other, second}

    def test_chains_longer_than_a_page_are_followed_whole(self, database: Database, request_id: str):
        tell(database, request_id, 4)
        more = rows.change_request(database, rows.read(database, ChangeRequest, request_id).workspace_id)
        tell(database, more, 3)
        found = checked(database, page=3)
        assert (found[request_id].events, found[more].events) == (9, 3)
        assert not any(one.broken for one in found.values())
        read = [step.events for step in audit.check(database, Wanted(), page=3) if isinstance(step, audit.Read)]
        assert read == sorted(read)
        assert read[-1] == 13
        force(database, "DELETE FROM events WHERE change_request_id = :id AND seq = 4", id=request_id)
        assert checked(database, page=3)[request_id].broken == Broken(4, "is missing")

    def test_what_is_appended_meanwhile_is_no_break(self, database: Database, request_id: str):
        found = []
        for step in audit.check(database, Wanted(change_request_id=request_id), page=2):
            found.append(step)
            if len(found) < 4:
                tell(database, request_id)
        assert found[-1] == Checked(request_id, 8)


class TestOlderVersions:
    """Rows as a version writes them that knows neither hashes nor actors."""

    def _write(self, database: Database, request_id: str, count: int = 1) -> None:
        with database.engine.begin() as connection:
            for _ in range(count):
                connection.execute(
                    text(
                        "WITH held AS (UPDATE change_requests SET last_event_seq = last_event_seq + 1 WHERE id = :id"
                        " RETURNING id, workspace_id, state, last_event_seq)"
                        " INSERT INTO events (id, workspace_id, change_request_id, seq, type, state, body, created_at)"
                        " SELECT 'evt_old_' || last_event_seq, workspace_id, id, last_event_seq,"
                        " 'change_request.alert', state, '{\"data\":{}}', now() FROM held"
                    ),
                    {"id": request_id},
                )

    def test_they_are_covered_by_the_next_hash(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace)
        self._write(database, request_id, 2)
        assert checked(database)[request_id] == Checked(request_id, 2, uncovered=2)
        tell(database, request_id, 2)
        self._write(database, request_id, 2)
        assert checked(database)[request_id] == Checked(request_id, 6, uncovered=2)
        tell(database, request_id)
        assert checked(database)[request_id] == Checked(request_id, 7)
        force(database, "UPDATE events SET body = '{}' WHERE id = 'evt_old_2'")
        broken = checked(database)[request_id].broken
        assert broken is not None
        assert broken.seq == 3

    def test_their_events_of_endpoints_stand_beside_the_chain(self, database: Database, workspace: str):
        with database.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO events (id, workspace_id, type, body, created_at)"
                    " VALUES ('evt_old', :id, 'webhook_endpoint.test', '{}', now())"
                ),
                {"id": workspace},
            )
        _act(database, workspace)
        assert checked(database)[workspace] == Checked(workspace, 2)
        with database.reads() as session:
            assert audit.unnumbered(session, workspace) == audit.unnumbered(session, None) == 1
            assert audit.unnumbered(session, "ws_other") == 0


class TestExport:
    def test_lines_are_verified_without_the_database_and_resumed(
        self, database: Database, workspace: str, request_id: str
    ):
        assert request_id
        tell(database, rows.change_request(database, rows.workspace(database, "other")))
        lines = list(audit.export(database, workspace, Place(), page=2))
        assert [line["type"] for line in lines] == ["workspace.created", *["change_request.alert"] * 5]
        chains = Chains()
        for line in lines:
            link = link_of_json(canonical(line))
            assert link is not None
            assert chains.follow(link)[1] is None
        cursor = str(lines[3]["cursor"])
        assert list(audit.export(database, workspace, Place(*map(int, cursor.split("."))))) == lines[4:]


def test_an_event_costs_no_statement_for_its_hash(database: Database):
    """The sequence number and the hash are one UPDATE, the event and the search for endpoints one INSERT."""
    workspace = rows.workspace(database, webhooks=[HOOK])
    request_id = rows.change_request(database, workspace)
    statements: list[str] = []

    def note(*arguments: object) -> None:
        statements.append(str(arguments[2]).split()[0])

    with database.transaction() as session:
        row = session.get_one(ChangeRequest, request_id, with_for_update=True)
        event.listen(Engine, "before_cursor_execute", note)
        try:
            events.append(database, session, row, name=Notice.ALERT, actor=rows.ACTOR, now=rows.NOW)
        finally:
            event.remove(Engine, "before_cursor_execute", note)
    assert statements == ["UPDATE", "WITH", "INSERT"]
    assert len(rows.deliveries(database)) == 1


def test_the_end_of_the_acts_is_kept_beside_them(database: Database, workspace: str):
    _act(database, workspace)
    with database.transaction() as session:
        last = session.scalars(
            select(Event).where(Event.change_request_id.is_(None)).order_by(Event.seq.desc())
        ).first()
    assert last is not None
    end = rows.read(database, ActChain, workspace)
    assert (end.last_seq, end.last_hash) == (last.seq, last.hash) == (2, last.hash)
