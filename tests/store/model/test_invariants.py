"""Each thing that must never be is found when it is: in a database that refuses nothing, it is done by hand."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest
from sqlalchemy import text

from service.domain.audit import Chains
from service.store.database import Database, make_engine
from tests.support import rows
from tests.support.model.invariants import VIOLATIONS, check
from tests.support.model.outside import TOKEN_PREFIX
from tests.support.model.told import tell
from tests.support.model.world import World
from tests.support.postgres import NewDatabase

_LAWLESS: Final = text(
    """
DO $$ DECLARE one record; BEGIN
  FOR one IN SELECT conname, conrelid::regclass AS place FROM pg_constraint
             WHERE connamespace = 'public'::regnamespace AND contype IN ('f', 'c', 'u') ORDER BY contype DESC LOOP
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', one.place, one.conname);
  END LOOP;
  FOR one IN SELECT indexrelid::regclass AS place FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
             WHERE indisunique AND NOT indisprimary AND c.relnamespace = 'public'::regnamespace LOOP
    EXECUTE format('DROP INDEX %s', one.place);
  END LOOP;
  ALTER TABLE events DISABLE TRIGGER USER;
END $$
"""
)


class Break(NamedTuple):
    """What is written, and what the outside says that it took."""

    sql: str
    posts: tuple[str, ...] = ()
    commits: tuple[bytes, ...] = ()


def _twin(table: str, changes: str) -> Break:
    twin = f"""SELECT jsonb_populate_record(one, '{{"id"\\: "twin"}}') AS row FROM {table} one LIMIT 1"""  # noqa: S608 - our own names
    insert = f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT (row).* FROM ({twin}) made"  # noqa: S608 - likewise
    return Break(f"{insert}; UPDATE {table} SET {changes}")  # noqa: S608 - likewise


_TWO_TOKENS: Final = (
    r"INSERT INTO commit_tokens SELECT token, id FROM (VALUES ('\x01'::bytea), ('\x02'::bytea)) made (token),"
    " (SELECT id FROM change_requests LIMIT 1) holder"
)
BREAKS: Final[dict[str, Break]] = {
    "waits without a reason": Break(
        "UPDATE change_requests SET state = 'received', reason = NULL, due_at = now() + interval '1 hour'"
    ),
    "failed for no cause": Break("UPDATE change_requests SET state = 'failed', reason = 'deadline_passed'"),
    "a defect was met": Break("UPDATE proposals SET fault = 'internal_error'"),
    "two live requests of a CVM": _twin("change_requests", "state = 'prepared', vm_uuid = 'one'"),
    "two live proposals of an identity": _twin("proposals", "state = 'queued'"),
    "two live approvals at a nonce": _twin("safe_transactions", "state = 'queued', kind = 'approval'"),
    "a proposal that nobody waits for": Break(
        "UPDATE proposals SET state = 'queued'; UPDATE change_requests SET proposal_id = NULL"
    ),
    "a gap in the events": Break("DELETE FROM events WHERE change_request_id IS NOT NULL AND seq = 1"),
    "a chain with another end": Break("UPDATE change_requests SET last_event_hash = 'another'"),
    "a state without its event": Break("UPDATE change_requests SET version = version + 1"),
    "an edge that is not in the table": Break(
        "UPDATE events SET state = 'failed', type = 'change_request.failed' WHERE type = 'change_request.' || state"
    ),
    "an event without its delivery": Break("DELETE FROM webhook_deliveries"),
    "a token that is told": Break(f"UPDATE change_requests SET detail = '{TOKEN_PREFIX}000000000001'"),  # noqa: S608 - likewise
    "a token that is kept": Break(r"UPDATE change_requests SET state = 'committed', commit_token_sealed = '\x01'"),
    "a token that is not known": Break(r"UPDATE change_requests SET commit_token_fingerprint = '\x03'"),
    "a commit began that was held": Break(
        "UPDATE change_requests SET commit_attempted_at = now(), commit_policy = 'hold', released_at = NULL"
    ),
    "a commit began before its time": Break(
        "UPDATE change_requests SET commit_attempted_at = now(), not_before = now() + interval '1 second'"
    ),
    "a commit began beside a freeze": Break(
        "UPDATE workspaces SET commits_frozen_at = now(); UPDATE change_requests SET commit_attempted_at = now()"
    ),
    "posted before it was stored": Break("SELECT 1", posts=("0x01",)),
    "two commits were accepted": Break(_TWO_TOKENS, commits=(b"\x01", b"\x02")),
    "committed with a token that nobody held": Break("SELECT 1", commits=(b"\x03",)),
}


@pytest.fixture(scope="module")
def world(new_database: NewDatabase) -> Iterator[World]:
    """In the middle of a story, with a database that refuses nothing."""
    with new_database() as url:
        engine = make_engine(url)
        try:
            told = tell(Database(engine, rows.sealer(), public_url="https://countersign.example"), seed=2, steps=20)
            check(told)
            with engine.begin() as connection:
                connection.execute(_LAWLESS)
            yield told
        finally:
            engine.dispose()


@pytest.mark.parametrize("what", sorted(BREAKS))
def test_it_is_found(world: World, what: str):
    made = BREAKS[what]
    with world.database.engine.connect() as connection:
        for statement in made.sql.split("; "):
            connection.execute(text(statement))
        outside = {"posts": [*world.queue.posts, *made.posts], "commits": list(made.commits), "begun": []}
        found = connection.exec_driver_sql(VIOLATIONS.sql, outside)
        assert what in {row[0] for row in found}
        connection.rollback()


def test_each_of_them_is_broken_here():
    assert set(re.findall(r"SELECT '([a-zA-Z ]+)', ", VIOLATIONS.sql)) == set(BREAKS)


def test_an_event_that_was_altered_is_found(world: World):
    world.observe()
    world.followed, world.chains = 0, Chains()
    with world.database.engine.begin() as connection:
        changed = "UPDATE events SET body = replace(body, '\"seq', '\" seq') WHERE seq = 1"
        connection.execute(text(changed))
    with pytest.raises(AssertionError, match="was altered"):
        check(world)
