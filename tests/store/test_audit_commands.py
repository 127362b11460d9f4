"""``countersign audit`` on a real database, and on files alone."""

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.cli import app
from service.domain.outcomes import Notice
from service.settings import SettingsError
from service.store import events
from service.store.database import Database
from service.store.tables import ChangeRequest
from tests.support import rows

Run = Callable[..., Result]
SECRET = b64encode(bytes(32)).decode()


@pytest.fixture
def run(database: Database, closed_engines: None, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command of ``countersign audit``."""
    assert closed_engines is None
    monkeypatch.setenv("COUNTERSIGN_DATABASE_URL", database.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("COUNTERSIGN_ENCRYPTION_KEYS", json.dumps({"k1": SECRET}))
    monkeypatch.setenv("COUNTERSIGN_FINGERPRINT_KEY", SECRET)
    return lambda *arguments: CliRunner().invoke(app, ["audit", *arguments])


@pytest.fixture
def request_id(database: Database, workspace: str) -> str:
    """A change request with three events."""
    made = rows.change_request(database, workspace)
    with database.transaction() as session:
        row = session.get_one(ChangeRequest, made, with_for_update=True)
        for name in (Notice.ALERT, Notice.REORGED, Notice.EXPIRING):
            events.append(database, session, row, name=name, actor=rows.ACTOR, now=rows.NOW)
    return made


def alter(database: Database, statement: str) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE events DISABLE TRIGGER USER")
        connection.exec_driver_sql(statement)
        connection.exec_driver_sql("ALTER TABLE events ENABLE TRIGGER USER")


def test_what_is_whole_ends_well(run: Run, request_id: str):
    for arguments in ((), ("--workspace", "acme"), ("--since", "2026-03-01T00:00:00Z"), ("--strict",)):
        result = run("verify", *arguments)
        assert (result.exit_code, result.stdout) == (0, "4 events in 2 chains, 0 broken\n"), result.output
    result = run("verify", "--change-request", request_id)
    assert result.stdout == "3 events in 1 chains, 0 broken\n"


def test_what_is_broken_is_named(database: Database, run: Run, request_id: str):
    alter(database, "UPDATE events SET body = replace(body, 'reorged', 'alert') WHERE type = 'change_request.reorged'")
    result = run("verify")
    assert result.exit_code == 1
    assert result.stdout == "4 events in 2 chains, 1 broken\n"
    complaint = "event 2 was altered: it does not have the hash that is stored"
    assert result.stderr == f"countersign: {request_id}: {complaint}\n"


def test_what_no_hash_covers_is_told_and_counts_where_that_is_wished(database: Database, run: Run, request_id: str):
    alter(database, "UPDATE events SET hash = NULL, previous_hash = NULL WHERE change_request_id IS NOT NULL")
    assert request_id
    alter(database, "UPDATE change_requests SET last_chained_seq = 0, last_event_hash = NULL")
    told = "3 events are not covered by a hash yet: an older version wrote them\n4 events in 2 chains, 0 broken\n"
    assert [(one.exit_code, one.stdout) for one in (run("verify"), run("verify", "--strict"))] == [(0, told), (1, told)]


def test_an_export_is_resumed_and_verified_without_a_database(
    run: Run, request_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = run("export", "--workspace", "acme").stdout
    lines = whole.splitlines(keepends=True)
    assert [json.loads(line)["change_request_id"] for line in lines] == [None, *[request_id] * 3]
    rest = run("export", "--workspace", "acme", "--after", json.loads(lines[1])["cursor"]).stdout
    assert rest == "".join(lines[2:])
    monkeypatch.undo()

    def verify(*kept: str) -> tuple[int, str]:
        path = tmp_path / "export.jsonl"
        path.write_text("".join(kept))
        result = CliRunner().invoke(app, ["audit", "verify", "--file", str(path)])
        return result.exit_code, result.output

    assert verify(whole) == (0, "4 events in 2 chains, 0 broken\n")
    late = "1 chains begin in the middle: what was before is not here\n"
    assert verify(*lines[2:]) == (0, f"{late}2 events in 1 chains, 0 broken\n")
    code, output = verify(lines[0], lines[1], lines[2].replace("tester", "nobody"), "{}\n", lines[3])
    assert code == 1
    altered = "event 2 was altered: it does not have the hash that is stored"
    assert output.splitlines() == [
        f"countersign: line 3: {request_id}: {altered}",
        "countersign: line 4: it is no line of an export",
        "5 events in 2 chains, 2 broken",
    ]
    assert f"line 3: {request_id}: event 2 is missing" in verify(lines[0], lines[1], lines[3])[1].replace("line 2", "x")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("verify", "--workspace", "none"), "there is no workspace none"),
        (("verify", "--change-request", "cr_none"), "there is no change request cr_none"),
        (("verify", "--file", "/nowhere/x.jsonl"), "/nowhere/x.jsonl cannot be read"),
        (("export", "--workspace", "none"), "there is no workspace none"),
    ],
)
def test_what_is_not_there_is_named(run: Run, arguments: tuple[str, ...], complaint: str):
    result = run(*arguments)
    assert isinstance(result.exception, SettingsError)
    assert complaint in str(result.exception)


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "--since", "yesterday"),
        ("verify", "--since", "2026-03-01T00:00:00"),
        ("export", "--workspace", "acme", "--after", "x"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, arguments: tuple[str, ...]):
    assert run(*arguments).exit_code == 2
