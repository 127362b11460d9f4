"""What docs/operations.md and docs/webhooks.md show of the database is so."""

import json
import re
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import select, text

from scripts.settings_docs import NEEDED
from service import wiring
from service.domain.states import State
from service.settings import ChainSettings, Settings, SettingsError
from service.store import idempotency
from service.store.database import Database
from service.store.idempotency import Answer, Attempt
from service.store.requests import Submission, submit
from service.store.tables import Event
from tests.support import heard, rows
from workers.app import make_app

DOCS = Path(__file__).resolve().parents[2] / "docs"

KEY = b64encode(bytes(32)).decode()
NOWHERE = "http://127.0.0.1:1"
CHAIN = {"name": "anvil", "rpc_urls": [NOWHERE], "safe_service_url": NOWHERE}


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("query", _blocks("operations.md", "sql"))
def test_every_query_of_the_page_runs(database: Database, query: str):
    with database.transaction() as session:
        session.execute(text(query.replace(":", "\\:")))


def test_the_query_for_encryption_keys_names_the_key_of_every_sealed_value(database: Database):
    hooks = [("https://hooks.example/", SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))]
    secret = SecretStr("whsec_that-phala-cloud-shows")
    workspace_id = rows.workspace(database, webhooks=hooks, phala_webhook_secrets=[secret])
    request_id = rows.change_request(database, workspace_id, State.REGISTERED, vm_uuid=heard.VM_UUID)
    heard.hear(database, workspace_id)
    idempotency.once(database, Attempt(workspace_id, "run 7", b"f" * 32), lambda _: Answer(202, {}, "{}"))
    (query,) = (query for query in _blocks("operations.md", "sql") if "split_part" in query)

    with database.transaction() as session:
        found = session.execute(text(query)).all()

    assert sorted((row.kind, row.key_id, row.name) for row in found if row.kind != "heard prepare") == [
        ("change request", "k1", request_id),
        ("kept answer", "k1", "run 7"),
        ("webhook endpoint", "k1", "https://hooks.example/"),
        ("webhooks of Phala Cloud", "k1", "acme"),
        ("workspace", "k1", "acme"),
    ]
    assert [row.key_id for row in found if row.kind == "heard prepare"] == ["k1"]


def test_the_sample_of_a_webhook_has_the_members_of_a_real_one(database: Database, workspace: str):
    (sample,) = _blocks("webhooks.md", "json")
    shown = json.loads(sample)
    row = submit(
        database, Submission(workspace, "my-agent", {"vcpu": 2}, None, None, False, [], None), rows.NOW, rows.ACTOR
    )

    with database.transaction() as session:
        real = json.loads(session.scalars(select(Event.body).where(Event.change_request_id == row.id)).one())

    assert shown.keys() == real.keys()
    assert shown["actor"].keys() == real["actor"].keys()
    assert shown["data"].keys() - {"previous_state"} == real["data"].keys()
    assert shown["data"]["cvm"].keys() == real["data"]["cvm"].keys()


def _start_worker(settings: Settings) -> None:
    wiring.for_worker(settings)
    make_app(settings)


def _start_watch(settings: Settings) -> None:
    wiring.for_watch(settings)
    make_app(settings)


START: dict[str, Callable[[Settings], object]] = {
    "serve": wiring.for_api,
    "worker": _start_worker,
    "beat": make_app,
    "watch": _start_watch,
    "migrate": lambda settings: settings.need("database_url"),
    "workspace apply": wiring.database_of,
    "key": wiring.database_of,
    "secrets rotate": wiring.database_of,
    "audit": wiring.database_of,
}
"""What each command makes before it does anything, and asks its settings by."""


@pytest.mark.usefixtures("closed_engines")
@pytest.mark.parametrize("command", sorted(START))
def test_a_command_needs_exactly_the_settings_that_the_page_says(database: Database, command: str):
    complete = Settings(
        database_url=SecretStr(database.engine.url.render_as_string(hide_password=False)),
        redis_url=SecretStr("redis://127.0.0.1:1/0"),
        encryption_keys={"k1": SecretStr(KEY)},
        fingerprint_key=SecretStr(KEY),
        proposer_key=SecretStr("11" * 32),
        chains={31337: ChainSettings.model_validate(CHAIN)},
    )

    missed = {name for name in NEEDED if _complaint(START[command], complete, name) is not None}

    assert missed == {name for name, needed in NEEDED.items() if command in needed.by}
    assert {_complaint(START[command], complete, name) for name in missed} == {
        f"COUNTERSIGN_{name.upper()} is not set" for name in missed
    }


def _complaint(start: Callable[[Settings], object], complete: Settings, name: str) -> str | None:
    default = Settings.model_fields[name].get_default(call_default_factory=True)
    try:
        start(complete.model_copy(update={name: default}))
    except SettingsError as error:
        return str(error)
    return None
