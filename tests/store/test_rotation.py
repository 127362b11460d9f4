"""Rotation of encryption keys: everything sealed is sealed again, whenever it is interrupted."""

import json
from base64 import b64encode

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update
from typer.testing import CliRunner

from service.cli import app
from service.domain.acts import Act
from service.domain.states import State
from service.store import snapshots, workspaces
from service.store.columns import Base
from service.store.database import Database
from service.store.rotation import SEALED_COLUMNS, rotate
from service.store.tables import ChangeRequest, Event, WebhookEndpoint, Workspace
from service.store.workspace_changes import PHALA_SECRET
from tests.support import rows

HOOK = ("https://receiver.example/hook", SecretStr("whsec_c2VjcmV0"))


def _with_keys(database: Database, *key_ids: str) -> Database:
    return Database(database.engine, rows.sealer(*key_ids))


def _results(database: Database) -> dict[str, tuple[int, int]]:
    return {one.column: (one.sealed, len(one.faults)) for one in rotate(database)}


def test_no_sealed_column_is_left_out():
    sealed = {c.name for table in Base.metadata.tables.values() for c in table.c if c.name.endswith("_sealed")}
    assert sealed == {column.key for _, _, column in SEALED_COLUMNS}


def test_after_a_rotation_the_new_key_alone_opens_everything(database: Database):
    workspace = rows.workspace(database, webhooks=[HOOK])
    request_id = rows.change_request(database, workspace, State.PREPARED)

    results = _results(_with_keys(database, "k2", "k1"))
    assert {column: done for column, done in results.items() if done != (0, 0)} == {
        "workspaces.phala_api_key_sealed": (1, 0),
        "webhook_endpoints.secret_sealed": (1, 0),
        "change_requests.commit_token_sealed": (1, 0),
    }

    alone = _with_keys(database, "k2")
    assert workspaces.phala_account(alone, workspace).api_key.get_secret_value() == "phala-key-of-acme"
    with alone.transaction() as session:
        assert snapshots.change_request(alone, session, request_id).commit_token is not None
    assert set(_results(_with_keys(database, "k2", "k1")).values()) == {(0, 0)}, "a second run finds nothing to do"


@pytest.mark.fault(
    "people", "Re-encryption is interrupted", "run again it goes on; both keys open meanwhile", "the next run"
)
def test_an_interrupted_rotation_goes_on_where_it_was(database: Database):
    workspace = rows.workspace(database)
    requests = [rows.change_request(database, workspace, State.PREPARED) for _ in range(3)]
    rotated = _with_keys(database, "k2", "k1")
    next(rotate(rotated))  # the first batch, of the first column only
    assert rows.read(database, Workspace, workspace).phala_api_key_sealed.startswith(b"k2\0")
    assert rows.read(database, ChangeRequest, requests[0]).commit_token_sealed.startswith(b"k1\0")

    assert sum(sealed for sealed, _ in _results(rotated).values()) == 3


def test_a_missing_key_is_named_and_its_values_stay_as_they_were(database: Database):
    workspace = rows.workspace(database)
    before = rows.read(database, Workspace, workspace).phala_api_key_sealed

    faults = [fault for one in rotate(_with_keys(database, "k2")) for fault in one.faults]

    fault = faults[0]
    assert "COUNTERSIGN_ENCRYPTION_KEYS" in fault
    assert rows.read(database, Workspace, workspace).phala_api_key_sealed == before


def test_lists_of_secrets_and_emptied_secrets_are_rotated_too(database: Database):
    workspace = rows.workspace(database, webhooks=[HOOK])
    seal = database.sealer.seal
    sealed = [seal(SecretStr(text), purpose=PHALA_SECRET, row_id=workspace) for text in ("one", "two")]
    with database.transaction() as session:
        session.execute(update(Workspace).values(phala_webhook_secrets_sealed=sealed))
        session.execute(update(WebhookEndpoint).values(secret_sealed=b""))

    results = _results(_with_keys(database, "k2", "k1"))

    assert results["workspaces.phala_webhook_secrets_sealed"] == (1, 0)
    assert results["webhook_endpoints.secret_sealed"] == (0, 0)
    row = rows.read(database, Workspace, workspace)
    opened = [
        rows.sealer("k2").open(one, purpose=PHALA_SECRET, row_id=workspace).get_secret_value()
        for one in row.phala_webhook_secrets_sealed
    ]
    assert opened == ["one", "two"]


def test_the_command_says_how_far_it_is_and_fails_loudly_with_a_wrong_key(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    rows.workspace(database)
    wrong = b64encode(b"w" * 32).decode()
    monkeypatch.setenv("COUNTERSIGN_DATABASE_URL", database.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("COUNTERSIGN_FINGERPRINT_KEY", wrong)
    monkeypatch.setenv("COUNTERSIGN_ENCRYPTION_KEYS", json.dumps({"k2": wrong, "k1": wrong}))

    ended = CliRunner().invoke(app, ["secrets", "rotate"])

    assert ended.exit_code == 1
    assert "workspaces.phala_api_key_sealed: 0 sealed again, 1 do not open" in ended.output
    assert "does not open with the key it names" in ended.output
    assert wrong not in ended.output
    assert _told(database) == [{"key_id": "k2", "unreadable": 1}]


def test_the_command_is_told_in_the_audit_log(database: Database, monkeypatch: pytest.MonkeyPatch):
    rows.workspace(database)
    keys = {key_id: b64encode(key_id.encode().ljust(32, b"-")).decode() for key_id in ("k2", "k1")}
    monkeypatch.setenv("COUNTERSIGN_DATABASE_URL", database.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("COUNTERSIGN_FINGERPRINT_KEY", keys["k1"])
    monkeypatch.setenv("COUNTERSIGN_ENCRYPTION_KEYS", json.dumps(keys))

    ended = CliRunner().invoke(app, ["secrets", "rotate"])

    assert ended.exit_code == 0
    assert "workspaces.phala_api_key_sealed: 1 sealed again, 0 do not open" in ended.output
    assert _told(database) == [{"key_id": "k2", "unreadable": 0}]


def _told(database: Database) -> list[object]:
    """What the audit log says about rotations; an operator did them."""
    with database.transaction() as session:
        acts = session.scalars(select(Event).where(Event.type == Act.SECRETS_ROTATED)).all()
    assert all(act.actor is not None and act.actor["kind"] == "operator" for act in acts)
    return [json.loads(act.body)["data"] for act in acts]
