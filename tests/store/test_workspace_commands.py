"""``countersign workspace`` on a real database."""

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner, Result

from service.cli import app
from service.domain.reasons import Reason
from service.settings import SettingsError
from service.store import standing, workspaces
from service.store.database import Database
from service.store.tables import Event
from tests.support import rows

Run = Callable[..., Result]
SECRET = b64encode(bytes(32)).decode()
KEY = "phak_0123456789abcdef"
HOOKS = ["whsec_of-the-old-webhook-0123", "whsec_of-the-new-webhook-0123"]
CHAINS = {"31337": {"name": "anvil", "rpc_urls": ["http://127.0.0.1:1"], "safe_service_url": "http://127.0.0.1:1"}}


@pytest.fixture
def run(database: Database, closed_engines: None, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command of ``countersign workspace``; what it reads comes from ``given``."""
    assert closed_engines is None
    monkeypatch.setenv("COUNTERSIGN_DATABASE_URL", database.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("COUNTERSIGN_ENCRYPTION_KEYS", json.dumps({"k1": SECRET}))
    monkeypatch.setenv("COUNTERSIGN_FINGERPRINT_KEY", SECRET)
    monkeypatch.setenv("COUNTERSIGN_CHAINS", json.dumps(CHAINS))
    return lambda *words, given="": CliRunner().invoke(app, ["workspace", *words], input=given)


@pytest.fixture
def acme(run: Run) -> dict[str, Any]:
    return _json(run("create", "acme", "--phala-api-key-file", "-", "--name", "Acme", "--json", given=f"{KEY}\n"))


def _json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def _complaint(result: Result) -> str:
    assert isinstance(result.exception, SettingsError), result.output
    return str(result.exception)


def test_a_workspace_is_created_and_shown_without_its_secrets(database: Database, run: Run, acme: dict[str, Any]):
    assert (acme["slug"], acme["name"], acme["safes"]) == ("acme", "Acme", [])
    assert acme["phala"]["base_url"] == "https://cloud-api.phala.com/api/v1"
    assert workspaces.id_of(database, "acme") == acme["id"]
    assert "a workspace acme already" in _complaint(run("create", "acme", "--phala-api-key-file", "-", given=KEY))
    assert _json(run("show", "acme", "--json")) == acme
    for words in (("show", "acme"), ("list",), ("list", "--json")):
        shown = run(*words)
        assert shown.exit_code == 0
        assert "acme" in shown.output
        assert KEY not in shown.output


def test_settings_are_changed_one_by_one(run: Run, acme: dict[str, Any], tmp_path: Path):
    hooks = tmp_path / "hooks"
    hooks.write_text("\n".join(HOOKS))
    policy = ("--submit-scope", "manage", "--cancel-own-only", "--allow-without-approval")
    times = ("--deadline", "12h", "--run-deadline", "5m", "--events-kept", "forever", "--deliveries-kept", "30d")
    run("set", "acme", *policy, *times, "--phala-webhook-secrets-file", str(hooks))
    shown = _json(run("set", "acme", "--release-scope", "admin", "--json"))
    assert shown["policy"] == {
        "submit": "manage",
        "cancel": "submit",
        "release": "admin",
        "cancel_own_only": True,
        "allow_without_approval": True,
    }
    assert shown["deadlines"] == {"request_seconds": 43200, "run_seconds": 300}
    assert shown["retention"] == {"events_days": None, "deliveries_days": 30}
    assert shown["phala"]["webhook_secrets"] == 2
    assert shown["phala"]["api_key_set_at"] == acme["phala"]["api_key_set_at"]
    lines = run("show", "acme").output
    assert "cancel submit (own only), release admin, changes without approval" in lines
    assert "events for good, deliveries 30 d" in lines


def test_safes_and_apps_come_and_go(run: Run, acme: dict[str, Any]):
    assert acme["safes"] == []
    shown = _json(run("add-safe", "acme", f"anvil:{rows.SAFE}", "--json"))
    assert [one["eip3770"] for one in shown["safes"]] == [f"anvil:{rows.SAFE}"]
    run("add-external-app", "acme", f"base:{rows.APP}")
    assert f"Safe anvil:{rows.SAFE}" in run("show", "acme").output
    shown = _json(run("remove-safe", "acme", f"31337:{rows.SAFE}", "--json"))
    assert (shown["safes"], [one["id"] for one in shown["external_apps"]]) == ([], [f"8453:{rows.APP}"])
    assert "has not registered" in _complaint(run("remove-safe", "acme", f"anvil:{rows.SAFE}"))
    assert _json(run("remove-external-app", "acme", f"base:{rows.APP}", "--json"))["external_apps"] == []


def test_a_block_is_shown_with_what_was_found(database: Database, run: Run, acme: dict[str, Any]):
    standing.note(database, acme["id"], "phala:key", Reason.PHALA_UNAUTHORIZED, "bad\x1b[31m key")
    run("block", "acme", "--reason", "the invoice is unpaid")
    shown = run("show", "acme").output
    assert "workspace_blocked (the invoice is unpaid)" in shown
    assert "phala_unauthorized of phala:key (bad\\x1b[31m key): Give the workspace a Phala API key" in shown
    assert "BLOCKED by phala_unauthorized, workspace_blocked" in run("list").output
    shown = run("unblock", "acme").output
    assert "workspace_blocked" not in shown
    assert "phala_unauthorized" in shown
    run("set", "acme", "--phala-api-key-file", "-", given="phak_another-key")
    assert run("list").output.startswith("acme  ok")


def test_what_an_operator_does_is_in_the_audit_log(database: Database, run: Run, acme: dict[str, Any]):
    run(
        "set", "acme", "--submit-scope", "manage", "--events-kept", "30d", "--phala-api-key-file", "-", given="phak_new"
    )
    run("add-safe", "acme", f"anvil:{rows.SAFE}")
    run("add-safe", "acme", f"anvil:{rows.SAFE}")
    run("add-external-app", "acme", f"base:{rows.APP}")
    run("remove-safe", "acme", f"anvil:{rows.SAFE}")
    run("block", "acme", "--reason", "the invoice is unpaid")
    run("unblock", "acme")
    with database.transaction() as session:
        acts = session.scalars(select(Event).where(Event.workspace_id == acme["id"]).order_by(Event.seq)).all()
    updated, asked = "workspace.updated", "workspace.recheck_requested"
    assert [act.type for act in acts] == ["workspace.created", *[updated] * 6, asked]
    assert {(act.actor or {})["kind"] for act in acts} == {"operator"}
    changes = [json.loads(act.body)["data"]["changes"] for act in acts[1:-1]]
    assert changes[:4] == [
        {
            "submit_scope": {"from": "submit", "to": "manage"},
            "event_retention_days": {"from": 365, "to": 30},
            "phala_api_key": "changed",
        },
        {"safes": {"from": [], "to": [f"31337:{rows.SAFE}"]}},
        {"external_apps": {"from": [], "to": [f"8453:{rows.APP}"]}},
        {"safes": {"from": [f"31337:{rows.SAFE}"], "to": []}},
    ]
    assert changes[4]["blocked_reason"] == {"from": None, "to": "the invoice is unpaid"}
    assert changes[5]["blocked_at"] == {"from": changes[4]["blocked_at"]["to"], "to": None}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("show", "nobody"), "there is no workspace nobody"),
        (("block", "nobody", "--reason", "x"), "there is no workspace nobody"),
        (("block", "acme", "--reason", "a\nb"), "one line"),
        (("set", "acme", "--submit-scope", "read"), "policy.submit"),
        (("set", "acme", "--deadline", "10s"), "deadlines.request_seconds"),
        (("set", "acme", "--events-kept", "36h"), "whole days"),
        (("set", "acme", "--events-kept", "1d"), "retention.events_days"),
        (("set", "acme", "--phala-api-key-file", "/nowhere"), "/nowhere cannot be read"),
        (("add-safe", "acme", rows.SAFE), "short name in front"),
        (("add-safe", "acme", f"nowhere:{rows.SAFE}"), "neither configured nor well known"),
        (("add-safe", "acme", f"anvil:{rows.SAFE.lower()}"), "EIP-55"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, tuple) else "",
)
def test_what_makes_no_sense_is_told_in_one_line(
    run: Run, acme: dict[str, Any], words: tuple[str, ...], complaint: str
):
    assert acme
    told = _complaint(run(*words))
    assert complaint in told
    assert "\n" not in told


def test_a_slug_that_cannot_be_one_is_refused(run: Run):
    told = _complaint(run("create", "Acme!", "--phala-api-key-file", "-", given=KEY))
    assert "lower-case" in told


def test_a_file_sets_what_it_says_and_leaves_what_older_files_do_not_know(run: Run, acme: dict[str, Any]):
    file = {"slug": "acme", "phala_api_key": KEY, "safes": [f"anvil:{rows.SAFE}"]}
    run("set", "acme", "--submit-scope", "manage", "--events-kept", "30d", "--deadline", "1h")
    assert _json(run("apply", "-", given=json.dumps(file)))["id"] == acme["id"]
    shown = _json(run("show", "acme", "--json"))
    assert (shown["name"], shown["policy"]["submit"], shown["retention"]["events_days"]) == ("Acme", "manage", 30)
    assert shown["deadlines"]["request_seconds"] == 30 * 86400, "the file's own members have a default"

    file |= {"name": "Acme, Ltd.", "policy": {"submit": "submit"}, "retention": {"events_days": None}}
    run("apply", "-", given=json.dumps(file))
    shown = _json(run("show", "acme", "--json"))
    assert (shown["name"], shown["policy"]["submit"], shown["retention"]["events_days"]) == (
        "Acme, Ltd.",
        "submit",
        None,
    )
