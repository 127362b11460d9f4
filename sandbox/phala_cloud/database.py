"""The sandbox's state: one SQLite file in WAL mode, so that it survives a restart."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS workspaces (
    id INTEGER PRIMARY KEY, hashed_id TEXT NOT NULL UNIQUE, slug TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
    user_hashed_id TEXT NOT NULL, username TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS api_keys (
    key_sha256 TEXT PRIMARY KEY, workspace_id INTEGER NOT NULL REFERENCES workspaces (id));
CREATE TABLE IF NOT EXISTS kms (
    id INTEGER PRIMARY KEY, hashed_id TEXT NOT NULL UNIQUE, slug TEXT NOT NULL UNIQUE, kms_type TEXT NOT NULL,
    version TEXT NOT NULL, chain_id INTEGER, contract_address TEXT, gateway_app_id TEXT, seed BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS cvms (
    id INTEGER PRIMARY KEY, workspace_id INTEGER NOT NULL REFERENCES workspaces (id),
    kms_id INTEGER NOT NULL REFERENCES kms (id), hashed_id TEXT NOT NULL UNIQUE, vm_uuid TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL, app_id TEXT NOT NULL, instance_id TEXT, node_instance_id TEXT NOT NULL,
    device_id TEXT NOT NULL, node_id INTEGER NOT NULL, node_name TEXT NOT NULL,
    status TEXT NOT NULL, boot_progress TEXT, boot_error TEXT,
    compose TEXT NOT NULL, compose_hash TEXT NOT NULL, running_compose TEXT, running_since REAL,
    exited_at REAL,
    vcpu INTEGER NOT NULL, memory INTEGER NOT NULL, disk_size INTEGER NOT NULL, image TEXT NOT NULL,
    instance_type TEXT NOT NULL, gpus TEXT, user_config TEXT NOT NULL, encrypted_env TEXT NOT NULL,
    shutdown_timeout INTEGER, allow_force_stop INTEGER NOT NULL, listed INTEGER NOT NULL,
    created_at REAL NOT NULL, updated_at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS cvms_by_app ON cvms (app_id);
CREATE TABLE IF NOT EXISTS prepares (
    id INTEGER PRIMARY KEY, cvm_id INTEGER NOT NULL REFERENCES cvms (id), token_sha256 TEXT UNIQUE,
    compose TEXT NOT NULL, compose_hash TEXT NOT NULL, base_hash TEXT NOT NULL, members TEXT NOT NULL,
    source TEXT NOT NULL, created_at REAL NOT NULL, expires_at REAL NOT NULL,
    superseded_at REAL, spent_at REAL);
CREATE INDEX IF NOT EXISTS prepares_by_cvm ON prepares (cvm_id, compose_hash);
CREATE TABLE IF NOT EXISTS operations (
    id INTEGER PRIMARY KEY, cvm_id INTEGER NOT NULL REFERENCES cvms (id), correlation_id TEXT NOT NULL UNIQUE,
    operation_type TEXT NOT NULL, status TEXT NOT NULL, phase TEXT NOT NULL, target_state TEXT NOT NULL,
    compose TEXT, compose_hash TEXT, members TEXT NOT NULL, mishap TEXT, mishap_detail TEXT,
    started_at REAL NOT NULL, due_at REAL, completed_at REAL, error_message TEXT,
    triggered_by INTEGER NOT NULL, instance_name TEXT NOT NULL, events TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS one_operation_at_a_time ON operations (cvm_id) WHERE status = 'in_progress';
CREATE INDEX IF NOT EXISTS operations_by_cvm ON operations (cvm_id, started_at);
CREATE TABLE IF NOT EXISTS revisions (
    id INTEGER PRIMARY KEY, hashed_id TEXT NOT NULL UNIQUE, cvm_id INTEGER NOT NULL REFERENCES cvms (id),
    compose TEXT NOT NULL, compose_hash TEXT NOT NULL, encrypted_env TEXT NOT NULL, user_config TEXT NOT NULL,
    operation_type TEXT NOT NULL, trace_id TEXT, created_at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS revisions_by_cvm ON revisions (cvm_id);
CREATE TABLE IF NOT EXISTS webhooks (
    id TEXT PRIMARY KEY, workspace_id INTEGER NOT NULL REFERENCES workspaces (id), url TEXT NOT NULL,
    name TEXT,
    events TEXT NOT NULL, secret TEXT NOT NULL, enabled INTEGER NOT NULL,
    created_at REAL NOT NULL, updated_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY, webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event_id TEXT NOT NULL, event_type TEXT NOT NULL, original_event_id TEXT NOT NULL, body BLOB NOT NULL,
    status TEXT NOT NULL, attempts INTEGER NOT NULL, next_attempt_at REAL, first_signed_at INTEGER,
    request_url TEXT NOT NULL, response_status INTEGER NOT NULL, error_message TEXT NOT NULL,
    duration_ms INTEGER NOT NULL, created_at REAL NOT NULL, delivered_at REAL);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS deliveries_by_webhook ON deliveries (webhook_id);
CREATE TABLE IF NOT EXISTS mishaps (
    id INTEGER PRIMARY KEY, cvm_id INTEGER NOT NULL REFERENCES cvms (id), kind TEXT NOT NULL,
    detail TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS faults (
    id INTEGER PRIMARY KEY, method TEXT NOT NULL, path TEXT NOT NULL, moment TEXT NOT NULL,
    remaining INTEGER NOT NULL, action TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ledger (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, vm_uuid TEXT, data TEXT NOT NULL);
"""

Value: TypeAlias = str | int | float | bytes | None


class Database:
    """One connection, guarded by a lock; callers never hold a transaction while they do network I/O."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._lock = threading.RLock()
        self._depth = 0
        self._connection.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;" + _SCHEMA,
        )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; an inner transaction joins the outer one."""
        with self._lock:
            outermost = self._depth == 0
            if outermost:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                if outermost:
                    self._connection.execute("ROLLBACK")
                raise
            else:
                if outermost:
                    self._connection.execute("COMMIT")
            finally:
                self._depth -= 1

    def all(self, sql: str, *values: Value) -> list[sqlite3.Row]:
        """Every row of a query."""
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def one(self, sql: str, *values: Value) -> sqlite3.Row | None:
        """The first row of a query, if any."""
        with self._lock:
            row: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
            return row

    def run(self, sql: str, *values: Value) -> int:
        """Execute one statement; answers how many rows it changed."""
        with self._lock:
            return self._connection.execute(sql, values).rowcount

    def insert(self, table: str, **columns: Value) -> int:
        """Insert one row and answer its rowid. `table` and column names come from this package only."""
        names = ", ".join(columns)
        marks = ", ".join("?" * len(columns))
        with self._lock:
            statement = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - own names, bound values
            cursor = self._connection.execute(statement, tuple(columns.values()))
            return cursor.lastrowid or 0

    def update(self, table: str, row_id: int | str, **columns: Value) -> None:
        """Update the row with this `id`. `table` and column names come from this package only."""
        assignments = ", ".join(f"{name} = ?" for name in columns)
        with self._lock:
            statement = f"UPDATE {table} SET {assignments} WHERE id = ?"  # noqa: S608 - own names, bound values
            self._connection.execute(statement, (*columns.values(), row_id))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()
