"""``countersign key`` on a real database."""

import json
from base64 import b64encode
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from service.cli import app
from service.commands.shared import duration
from service.domain.api_keys import is_well_formed
from service.settings import SettingsError
from service.store import api_keys
from service.store.database import Database

Run = Callable[..., Result]
SECRET = b64encode(bytes(32)).decode()


@pytest.fixture
def run(database: Database, workspace: str, closed_engines: None, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command of ``countersign key`` for a database with the workspace acme."""
    assert workspace
    assert closed_engines is None
    monkeypatch.setenv("COUNTERSIGN_DATABASE_URL", database.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("COUNTERSIGN_ENCRYPTION_KEYS", json.dumps({"k1": SECRET}))
    monkeypatch.setenv("COUNTERSIGN_FINGERPRINT_KEY", SECRET)
    return lambda *arguments: CliRunner().invoke(app, ["key", *arguments])


def _answer(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.output)
    return answer


def _works(database: Database, key: str) -> bool:
    return api_keys.find(database, key) is not None


def test_a_key_is_made_and_shown_once(database: Database, run: Run):
    made = _answer(run("create", "--workspace", "acme", "--scope", "submit", "--name", "ci", "--expires", "90d"))
    assert (made["workspace"], made["name"], made["scope"], made["works"]) == ("acme", "ci", "submit", True)
    assert made["expires_at"] is not None
    assert is_well_formed(made["key"])
    assert _works(database, made["key"])
    listed = run("list", "--workspace", "acme").output
    assert [json.loads(line)["id"] for line in listed.splitlines()] == [made["id"]]
    assert made["key"] not in listed
    assert run("list", "--workspace", "other").output == ""


def test_a_key_is_rotated_and_revoked(database: Database, run: Run):
    old = _answer(run("create", "--workspace", "acme", "--scope", "manage"))
    new = _answer(run("rotate", old["id"]))
    assert new["replaces"] == old["id"]
    assert _works(database, old["key"])
    assert _works(database, new["key"])
    assert _answer(run("revoke", old["id"]))["works"] is False
    assert [_works(database, key["key"]) for key in (old, new)] == [False, True]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("create", "--workspace", "none", "--scope", "read"), "no workspace none"),
        (("revoke", "key_none"), "no API key key_none"),
        (("rotate", "key_none"), "no API key key_none"),
    ],
)
def test_what_is_not_there_is_named(run: Run, arguments: tuple[str, ...], complaint: str):
    result = run(*arguments)
    assert isinstance(result.exception, SettingsError)
    assert complaint in str(result.exception)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("12h", timedelta(hours=12)),
        ("90d", timedelta(90)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, span: timedelta):
    assert duration(text) == span


@pytest.mark.parametrize("text", ["", "90", "d", "1.5h", "-1d", "4000d", "1w", "1d1h"])
def test_other_durations_are_refused(text: str):
    with pytest.raises(typer.BadParameter):
        duration(text)
