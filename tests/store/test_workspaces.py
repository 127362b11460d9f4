"""Tenants: saved by several processes at once, with keys that open only where they belong."""

import pytest
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.exc import NoResultFound

from service.store import snapshots, workspaces
from service.store.database import Database
from service.store.sealing import SealingError
from service.store.tables import RegisteredSafe, WebhookEndpoint, Workspace
from tests.support import rows
from tests.support.threads import together

HOOK = ("https://receiver.example/hook", SecretStr("whsec_c2VjcmV0"))


def test_saving_again_replaces_the_settings_and_keeps_the_id(database: Database):
    first = rows.workspace(database, webhooks=[HOOK])
    second = rows.workspace(
        database,
        safes=[(1, rows.OTHER_SAFE)],
        external_apps=[(1, rows.APP)],
        phala_api_key=SecretStr("another key"),
        allow_without_approval=True,
        run_deadline_seconds=60,
        webhooks=[(HOOK[0], SecretStr("whsec_bmV3"))],
    )
    assert first == second == workspaces.id_of(database, "acme")
    with database.transaction() as session:
        policy = snapshots.workspace_policy(session, first)
        (endpoint,) = session.scalars(select(WebhookEndpoint))
    assert (policy.safes, policy.external_apps) == ({(1, rows.OTHER_SAFE)}, {(1, rows.APP)})
    assert (policy.allow_without_approval, policy.run_deadline_seconds) == (True, 60)
    assert workspaces.phala_account(database, first).api_key.get_secret_value() == "another key"
    secret = database.sealer.open(endpoint.secret_sealed, purpose="webhook_secret", row_id=endpoint.id)
    assert secret.get_secret_value() == "whsec_bmV3"


def test_secrets_of_phala_clouds_webhooks_are_replaced_and_open_only_there(database: Database):
    rows.workspace(database, phala_webhook_secrets=[SecretStr("first"), SecretStr("second")])
    workspace_id = rows.workspace(database, phala_webhook_secrets=[SecretStr("second"), SecretStr("third")])
    known = workspaces.phala_webhook_secrets(database, "acme")
    assert known is not None
    assert (known[0], [secret.get_secret_value() for secret in known[1]]) == (workspace_id, ["second", "third"])
    assert workspaces.phala_webhook_secrets(database, "nobody") is None
    stranger = Database(database.engine, rows.sealer("k2"))
    with pytest.raises(SealingError):
        workspaces.phala_webhook_secrets(stranger, "acme")


def test_processes_that_start_together_save_one_workspace_whose_key_opens(database: Database):
    ids = together([lambda: rows.workspace(database, webhooks=[HOOK])] * 6)
    assert len(set(ids)) == 1
    assert workspaces.phala_account(database, ids[0]).api_key.get_secret_value() == "phala-key-of-acme"
    with database.transaction() as session:
        assert len(session.scalars(select(Workspace)).all()) == 1
        assert len(session.scalars(select(RegisteredSafe)).all()) == 1
        assert len(session.scalars(select(WebhookEndpoint)).all()) == 1


def test_a_safe_that_is_named_twice_is_registered_once(database: Database):
    rows.workspace(database, safes=[(1, rows.SAFE), (1, rows.SAFE)])
    with database.transaction() as session:
        assert [safe.address for safe in session.scalars(select(RegisteredSafe))] == [rows.SAFE]


def test_what_cannot_be_saved_leaves_the_old_settings(database: Database, workspace: str):
    with pytest.raises(Exception, match="run_deadline"):
        rows.workspace(database, safes=[], run_deadline_seconds=0)
    with database.transaction() as session:
        assert snapshots.workspace_policy(session, workspace).safes == {(rows.CHAIN_ID, rows.SAFE)}


def test_an_unknown_workspace_is_no_one(database: Database):
    assert workspaces.id_of(database, "nobody") is None
    with pytest.raises(NoResultFound):
        workspaces.phala_account(database, "ws_nobody")


def test_the_key_of_one_workspace_is_of_no_use_to_another(database: Database, workspace: str):
    other = rows.workspace(database, "other")
    with database.transaction() as session:
        stolen = session.get_one(Workspace, workspace).phala_api_key_sealed
        session.get_one(Workspace, other).phala_api_key_sealed = stolen
    with pytest.raises(SealingError):
        workspaces.phala_account(database, other)
