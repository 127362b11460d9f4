"""What the service remembers, in one SQLite file. Times are microseconds since 1970, uint256 values decimal text."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

_SCHEMA = """
CREATE TABLE IF NOT EXISTS blocks (number INTEGER PRIMARY KEY, hash TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS safes (
    address TEXT PRIMARY KEY, owners TEXT NOT NULL, threshold INTEGER NOT NULL,
    block_number INTEGER NOT NULL, created INTEGER NOT NULL, creation_hash TEXT NOT NULL,
    changed_block INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS transactions (
    safe_tx_hash TEXT PRIMARY KEY, safe TEXT NOT NULL, "to" TEXT, value TEXT NOT NULL, data TEXT,
    operation INTEGER NOT NULL, safe_tx_gas TEXT NOT NULL, base_gas TEXT NOT NULL, gas_price TEXT NOT NULL,
    gas_token TEXT, refund_receiver TEXT, nonce INTEGER NOT NULL,
    created INTEGER NOT NULL, modified INTEGER NOT NULL, proposer TEXT, proposed_by_delegate TEXT,
    origin TEXT NOT NULL, trusted INTEGER NOT NULL, threshold INTEGER,
    executed_at INTEGER, block_number INTEGER, transaction_hash TEXT, executor TEXT, successful INTEGER,
    eth_gas_price TEXT, max_fee_per_gas TEXT, max_priority_fee_per_gas TEXT, gas_used INTEGER,
    payment TEXT, signatures TEXT);
CREATE INDEX IF NOT EXISTS transactions_by_safe ON transactions (safe, nonce);
CREATE TABLE IF NOT EXISTS confirmations (
    id INTEGER PRIMARY KEY, safe_tx_hash TEXT NOT NULL, owner TEXT NOT NULL, created INTEGER NOT NULL,
    signature TEXT NOT NULL, signature_type TEXT NOT NULL, transaction_hash TEXT, block_number INTEGER,
    UNIQUE (safe_tx_hash, owner));
CREATE TABLE IF NOT EXISTS delegates (
    id INTEGER PRIMARY KEY, safe TEXT, delegate TEXT NOT NULL, delegator TEXT NOT NULL, label TEXT NOT NULL,
    expires INTEGER);
CREATE UNIQUE INDEX IF NOT EXISTS delegates_once ON delegates (COALESCE(safe, ''), delegate, delegator);
CREATE TABLE IF NOT EXISTS controls (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS faults (id INTEGER PRIMARY KEY, remaining INTEGER NOT NULL, fault TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, route TEXT NOT NULL, path TEXT NOT NULL, status INTEGER);
CREATE TABLE IF NOT EXISTS accepted (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, safe TEXT NOT NULL, safe_tx_hash TEXT NOT NULL,
    nonce INTEGER NOT NULL, sender TEXT NOT NULL, origin TEXT NOT NULL);
"""

Value: TypeAlias = str | int | None


class Database:
    """One connection, guarded by a lock; nobody holds a transaction during network I/O."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {_SCHEMA}")
        self._lock = threading.RLock()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; not to be nested."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def all(self, sql: str, values: Sequence[Value] = ()) -> list[sqlite3.Row]:
        """Every row of a query."""
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def one(self, sql: str, values: Sequence[Value] = ()) -> sqlite3.Row | None:
        """The first row of a query, if any."""
        rows = self.all(sql, values)
        return rows[0] if rows else None

    def run(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Execute one statement and return how many rows it changed."""
        with self._lock:
            return self._connection.execute(sql, values).rowcount

    def insert(self, table: str, columns: dict[str, Value], *, or_ignore: bool = False) -> int:
        """Insert a row and return how many were (0 or 1); table and column names are this package's own."""
        names = ", ".join(f'"{name}"' for name in columns)
        marks = ", ".join("?" * len(columns))
        verb = "INSERT OR IGNORE" if or_ignore else "INSERT"
        return self.run(f"{verb} INTO {table} ({names}) VALUES ({marks})", list(columns.values()))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()
