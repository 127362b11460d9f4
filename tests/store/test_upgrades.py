"""A new version comes while the old one works, and can be taken back: migrations only add, and wait for nobody long."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Connection, Engine, text

import migrations
from service.store import migrate, revision
from service.store.columns import Base
from service.store.database import Database, make_engine
from tests.support import rows
from tests.support.model.drain import drain
from tests.support.model.invariants import check_ends
from tests.support.model.told import tell
from tests.support.postgres import NewDatabase
from tests.support.threads import in_background, wait_until_blocked

COMPATIBLE_SINCE: Final = "0006"
"""Programs of this revision or a later one work on the tables of any that comes after it."""
NEVER_UPDATED: Final = {"events"}
"""Tables that every program only ever wrote new rows to."""
REVISIONS: Final = sorted(path.name[:4] for path in (Path(migrations.__file__).parent / "versions").glob("0*.py"))
ALLOWS_AS_MUCH: Final = {
    "uq_events_act": "is of acts only, and no program of before could number one",
    "ck_events_of_a_request": "is looser",
}
"""New rules about columns of before, and why they refuse nothing that a program of before writes."""
COMPATIBLE: Final = [one for one in REVISIONS if one >= COMPATIBLE_SINCE]

_COLUMNS = text(
    "SELECT table_name, column_name, udt_name, is_nullable = 'YES' AS nullable,"
    " column_default IS NOT NULL OR is_identity = 'YES' AS filled FROM information_schema.columns"
    " WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
)
_RULES = text(
    "WITH rules AS (SELECT c.relname AS name, i.indrelid AS of_table, i.indkey::int2[] AS numbers,"
    " pg_get_indexdef(i.indexrelid) AS says FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indisunique"
    " UNION ALL SELECT conname, conrelid, conkey, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE contype IN ('c', 'f'))"
    " SELECT r.name, r.says, t.relname, array_agg(a.attname::text) FROM rules r JOIN pg_class t ON t.oid = r.of_table"
    " JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY(r.numbers)"
    " WHERE t.relnamespace = 'public'::regnamespace GROUP BY 1, 2, 3"
)

Columns = dict[tuple[str, str], tuple[str, bool, bool]]


@contextmanager
def _database(url: str) -> Iterator[Database]:
    engine = make_engine(url)
    try:
        yield Database(engine, rows.sealer(), public_url="https://countersign.example")
    finally:
        engine.dispose()


def _columns(engine: Engine) -> Columns:
    with engine.connect() as connection:
        return {(row[0], row[1]): (row[2], row[3], row[4]) for row in connection.execute(_COLUMNS)}


def _rules(engine: Engine) -> dict[tuple[str, str], tuple[str, tuple[str, ...]]]:
    """Table and columns of each unique index, check and foreign key, by its name and what it says."""
    with engine.connect() as connection:
        return {(row[0], row[1]): (row[2], tuple(row[3])) for row in connection.execute(_RULES)}


def _breaks(engine: Engine, url: str, target: str) -> list[str]:
    """What of a migration would stop a program that does not know it."""
    before, rules = _columns(engine), _rules(engine)
    migrate.upgrade(url, target)
    after, tables = _columns(engine), {table for table, _ in before}
    found = [f"{target}: {'.'.join(name)} is gone" for name in before if name not in after]
    for name, (kind, nullable, filled) in before.items():
        now = after.get(name, (kind, nullable, filled))
        if now[0] != kind or now[1] < nullable or now[2] < filled:
            found.append(f"{target}: {'.'.join(name)} asks for more than before")
    for name, (_, nullable, filled) in after.items():
        if name not in before and name[0] in tables and not (nullable or filled):
            found.append(f"{target}: {'.'.join(name)} is not filled by a program that does not know it")
    for (name, says), (table, columns) in _rules(engine).items():
        new = (name, says) not in rules and table in tables
        if new and all((table, column) in before for column in columns):
            found.append(f"{target}: {name} may refuse what was allowed: {says}")
    return found


def test_migrations_only_add(empty_database: NewDatabase):
    with empty_database() as url, _database(url) as database:
        migrate.upgrade(url, COMPATIBLE_SINCE)
        found = [breach for each in COMPATIBLE[1:] for breach in _breaks(database.engine, url, each)]
    excused = {breach: name for name in ALLOWS_AS_MUCH for breach in found if f": {name} may refuse" in breach}
    assert [breach for breach in found if breach not in excused] == []
    assert set(excused.values()) == set(ALLOWS_AS_MUCH), "nothing is excused that needs no excuse"


def test_one_that_does_more_is_found(empty_database: NewDatabase):
    """The last of the time before the rule is one."""
    with empty_database() as url, _database(url) as database:
        migrate.upgrade(url, "0005")
        found = _breaks(database.engine, url, "0006")
    assert "0006: webhook_endpoints.enabled is gone" in found
    assert "0006: webhook_deliveries.event_position is not filled by a program that does not know it" in found


@pytest.mark.fault(
    "people",
    "Migrations run while workers of the version before work",
    "what these write fits the new tables, and the new version carries it on",
    "no stop",
)
@pytest.mark.parametrize("old", COMPATIBLE[:-1])
def test_what_an_older_program_writes_fits(empty_database: NewDatabase, old: str):
    """Its rows, by INSERTs and UPDATEs that name what it knows, on the newest tables."""
    with empty_database() as url, _database(url) as database:
        migrate.upgrade(url)
        world = tell(database, seed=int(old), steps=20)
        migrate.downgrade(url, old)
        known: dict[str, list[str]] = {}
        for table, column in sorted(_columns(database.engine)):
            known.setdefault(table, []).append(f'"{column}"')
        with database.engine.begin() as connection:
            kept = _keep(connection, list(known))
        migrate.upgrade(url)
        with database.engine.begin() as connection:
            _write_as_before(connection, known)
            assert _counts(connection, list(known)) == kept
        drain(world)
        check_ends(world)
    assert kept["change_requests"]


def _in_order(tables: list[str]) -> list[str]:
    return [table.name for table in Base.metadata.sorted_tables if table.name in tables]


def _keep(connection: Connection, tables: list[str]) -> dict[str, int]:
    connection.execute(text("CREATE SCHEMA kept"))
    for table in tables:
        connection.execute(text(f'CREATE TABLE kept."{table}" AS SELECT * FROM "{table}"'))  # noqa: S608 - our own tables
    return _counts(connection, tables)


def _counts(connection: Connection, tables: list[str]) -> dict[str, int]:
    return {table: connection.scalar(text(f'SELECT count(*) FROM "{table}"')) or 0 for table in tables}  # noqa: S608 - likewise


def _of_change_requests(connection: Connection) -> dict[str, int]:
    """Acts on workspaces have no place in the tables of before 0009."""
    acts = connection.scalar(text("SELECT count(*) FROM events WHERE change_request_id IS NULL")) or 0
    found = _counts(connection, ["change_requests", "proposals", "safe_transactions", "events"])
    return found | {"events": found["events"] - acts}


def _write_as_before(connection: Connection, known: dict[str, list[str]]) -> None:
    connection.execute(text("SET LOCAL countersign.retention = 'on'"))
    for table in reversed(Base.metadata.sorted_tables):
        connection.execute(table.delete())
    for table in _in_order(list(known)):
        names = ", ".join(known[table])
        same = ", ".join(f"{name} = {name}" for name in known[table])
        source = f'INSERT INTO "{table}" ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM kept."{table}"'  # noqa: S608 - likewise
        connection.execute(text(source))
        if table not in NEVER_UPDATED:
            connection.execute(text(f'UPDATE "{table}" SET {same}'))  # noqa: S608 - likewise


@pytest.mark.fault(
    "people",
    "A release is taken back",
    "the earlier program works on the newer tables: nothing is migrated down, nothing is lost",
    "no stop",
)
def test_this_program_works_on_the_tables_of_a_later_one(empty_database: NewDatabase):
    """While it works they change under it, in every way that a migration may change them."""
    with empty_database() as url, _database(url) as database:
        migrate.upgrade(url)
        world = tell(database, seed=1, steps=20)
        with database.engine.begin() as connection:
            for table in Base.metadata.sorted_tables:
                connection.execute(text(f"ALTER TABLE {table.name} ADD later text, ADD more bigint NOT NULL DEFAULT 0"))
            connection.execute(text("CREATE TABLE of_later (id text PRIMARY KEY REFERENCES change_requests (id))"))
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        assert revision.is_at_head(database.engine)
        world.submit(0, {"docker_compose_file": "services:\n  web:\n    image: nginx:3\n"}, None, 30)
        drain(world)
        check_ends(world)


def test_but_not_on_those_of_an_earlier_one(empty_database: NewDatabase):
    with empty_database() as url, _database(url) as database:
        migrate.upgrade(url, REVISIONS[-2])
        assert not revision.is_at_head(database.engine)


def test_the_way_down_and_up_again_loses_no_change_request(empty_database: NewDatabase):
    """Every migration, with the rows of a busy time in the tables; everything goes on to its end afterwards."""
    with empty_database() as url, _database(url) as database:
        migrate.upgrade(url)
        world = tell(database, seed=2, steps=20)
        with database.engine.begin() as connection:
            before = _of_change_requests(connection)
        for target in reversed(REVISIONS[:-1]):
            migrate.downgrade(url, target)
        for target in REVISIONS[1:]:
            migrate.upgrade(url, target)
        with database.engine.begin() as connection:
            assert _of_change_requests(connection) == before
        drain(world)
        check_ends(world)


@pytest.mark.fault(
    "database",
    "A migration meets a long transaction",
    "it gives up its place in the queue, so that workers go on, and tries again",
    "2 s in the queue, every 3 s, for up to 8 min",
)
def test_nobody_waits_long_behind_a_migration(empty_database: NewDatabase):
    with empty_database() as url, _database(url) as database:
        migrate.upgrade(url, "0007")
        looks_at_proposals = text("SELECT count(*) FROM proposals")
        with database.engine.connect() as long:
            long.execute(looks_at_proposals)
            with in_background(lambda: migrate.upgrade(url)) as migrated:
                wait_until_blocked(database, 1)
                with database.transaction() as session:
                    session.execute(text("SET LOCAL lock_timeout = '6s'"))
                    assert session.scalar(looks_at_proposals) == 0
                assert not migrated.done()
                long.rollback()
                migrated.result()
        assert revision.is_at_head(database.engine)
