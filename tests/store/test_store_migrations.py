"""The migrations build what the models say, can be taken back, and refuse nothing to whoever runs them twice."""

import subprocess
import sys
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from service.domain.snapshots import ProposalState, SafeTransactionState
from service.store import audit, migrate, revision
from service.store.columns import Base
from service.store.database import Database, make_engine
from service.store.tables import Proposal
from tests.support import rows
from tests.support.postgres import NewDatabase
from tests.support.rows import tell

_CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid <> 0 ORDER BY 1, 2
"""
_INDEXES = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2"
_COLUMNS = """
    SELECT table_name, column_name, udt_name, is_nullable, column_default, is_identity FROM information_schema.columns
    WHERE table_schema = 'public' ORDER BY 1, 2
"""
_FOREIGN_KEYS_WITHOUT_INDEX = """
    SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'f' AND NOT EXISTS (
        SELECT FROM pg_index WHERE indrelid = conrelid AND indpred IS NULL
        AND (string_to_array(indkey::text, ' ')::smallint[])[1:cardinality(conkey)] @> conkey
    )
"""


def _catalogue(engine: Engine) -> dict[str, list[Any]]:
    with engine.connect() as connection:
        described = {
            name: [tuple(row) for row in connection.execute(text(query)) if row[0] != "alembic_version"]
            for name, query in (("constraints", _CONSTRAINTS), ("indexes", _INDEXES), ("columns", _COLUMNS))
        }
    assert all(described.values())
    return described


def test_the_migrations_run_up_down_and_up_again(empty_database: NewDatabase):
    with empty_database() as url:
        engine = make_engine(url)
        assert not revision.is_at_head(engine)
        migrate.upgrade(url)
        assert revision.is_at_head(engine)
        first = _catalogue(engine)
        migrate.downgrade(url, "base")
        assert not revision.is_at_head(engine)
        assert inspect(engine).get_table_names() == ["alembic_version"]
        migrate.upgrade(url)
        assert _catalogue(engine) == first
        engine.dispose()


def test_waiting_approvals_keep_their_signatures_and_left_overs_are_looked_after(empty_database: NewDatabase):
    """Revision 0003, on rows of the one before it."""
    with empty_database() as url:
        migrate.upgrade(url)
        engine = make_engine(url)
        database = Database(engine, rows.sealer(), public_url="")
        workspace = rows.workspace(database)
        waiting = rows.proposal(database, workspace)
        ended = rows.proposal(database, workspace, ProposalState.APPROVED, due_at=rows.NOW)
        done = rows.proposal(database, workspace, ProposalState.APPROVED)
        rows.approval(database, waiting, 0, confirmations=["0xA", "0xB"])
        rows.approval(database, ended, 1)
        rows.approval(database, done, 2, SafeTransactionState.EXECUTED)
        engine.dispose()
        for revision in ("0003", "-1"):
            migrate.downgrade(url, revision)
        migrate.upgrade(url)
        kinds = [one.signature_kinds for one in rows.transactions(database, waiting)]
        assert kinds == [{"0xA": "eip712", "0xB": "eip712"}]
        due = [rows.read(database, Proposal, each).due_at is not None for each in (waiting, ended, done)]
        assert due == [True, True, False]
        engine.dispose()


def test_without_the_audit_log_events_stay_and_begin_a_chain_anew(empty_database: NewDatabase):
    """Revision 0009, taken back and run again."""
    with empty_database() as url:
        migrate.upgrade(url)
        engine = make_engine(url)
        database = Database(engine, rows.sealer(), public_url="")
        workspace = rows.workspace(database)
        request_id = rows.change_request(database, workspace)
        tell(database, request_id, 2)
        bodies = [event.body for event in rows.events(database, request_id)]
        engine.dispose()
        migrate.downgrade(url, "0008")
        migrate.upgrade(url)
        tell(database, request_id)
        assert [event.body for event in rows.events(database, request_id)][:2] == bodies
        rows.workspace(database, deadline_seconds=600)
        found = [step for step in audit.check(database, audit.Wanted()) if isinstance(step, audit.Checked)]
        assert found == [audit.Checked(workspace, 1), audit.Checked(request_id, 3)]
        engine.dispose()


def test_the_models_see_no_difference(database_url: str):
    engine = make_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": Base.metadata}
        )
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_checks_partial_indexes_and_defaults_are_those_of_the_models(empty_database: NewDatabase, database_url: str):
    migrated = make_engine(database_url)
    with empty_database() as url:
        modelled = make_engine(url)
        Base.metadata.create_all(modelled)
        expected = _catalogue(modelled)
        modelled.dispose()
    found = _catalogue(migrated)
    for what in ("columns", "constraints", "indexes"):
        assert found[what] == expected[what]
    migrated.dispose()


def test_every_foreign_key_has_an_index(database_url: str):
    engine = make_engine(database_url)
    with engine.connect() as connection:
        foreign_keys = connection.scalar(text("SELECT count(*) FROM pg_constraint WHERE contype = 'f'"))
        assert foreign_keys
        assert connection.execute(text(_FOREIGN_KEYS_WITHOUT_INDEX)).all() == []
        connection.execute(text("DROP INDEX ix_change_requests_proposal_id"))
        missing = connection.execute(text(_FOREIGN_KEYS_WITHOUT_INDEX)).all()
        assert [row[1] for row in missing] == ["fk_change_requests_proposal_id"]
    engine.dispose()


def test_two_processes_that_migrate_at_once_do_not_disturb_each_other(empty_database: NewDatabase):
    script = (
        "import sys; from service.store.migrate import upgrade; print('ready', flush=True); sys.stdin.readline();"
        "upgrade(sys.argv[1])"
    )
    with empty_database() as url:
        command = [sys.executable, "-c", script, url]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        errors = [process.communicate(timeout=60)[1].decode() for process in processes]
        assert [(process.returncode, error) for process, error in zip(processes, errors, strict=True)] == [(0, "")] * 2
        engine = make_engine(url)
        assert revision.is_at_head(engine)
        engine.dispose()
