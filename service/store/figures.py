"""Figures for whoever watches the deployment: one statement over what has not ended, and how readiness judges."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.pool import QueuePool

from service.domain.readiness import Condition
from service.store import readiness
from service.store.database import Database, DatabaseFault, faults_in_one_line

_CONDITIONS: Final = {Condition.OK: 0.0, Condition.DEGRADED: 1.0, Condition.FAILING: 2.0}

# Tables grow with use, what has not ended does not: each part goes by a partial index, or by a table of few rows.
_FIGURES: Final = text(
    """
    WITH due AS (
      SELECT 'change_requests' AS kind, count(*) AS rows, min(due_at) AS oldest FROM change_requests
        WHERE due_at <= now() AND (lease_until IS NULL OR lease_until < now())
      UNION ALL
      SELECT 'proposals', count(*), min(due_at) FROM proposals
        WHERE due_at <= now() AND (lease_until IS NULL OR lease_until < now())
      UNION ALL
      SELECT 'chains', count(*), min(due_at) FROM chain_cursors
        WHERE due_at <= now() AND (lease_until IS NULL OR lease_until < now())
      UNION ALL
      SELECT 'accounts', count(*), min(due_at) FROM phala_recoveries
        WHERE due_at <= now() AND (lease_until IS NULL OR lease_until < now())
      UNION ALL
      SELECT 'deliveries', count(*), min(greatest(d.due_at, e.due_at))
        FROM webhook_deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint_id
        WHERE d.due_at <= now() AND e.due_at <= now() AND (e.lease_until IS NULL OR e.lease_until < now())
    )
    SELECT 'change_requests' AS name, state AS label, count(*)::float AS value FROM change_requests
      WHERE due_at IS NOT NULL GROUP BY state
    UNION ALL
    SELECT 'due_rows', kind, rows FROM due
    UNION ALL
    SELECT 'oldest_due_seconds', kind, coalesce(extract(epoch FROM now() - oldest), 0) FROM due
    UNION ALL
    SELECT 'webhook_endpoints', state, count(*) FROM webhook_endpoints WHERE state <> 'deleted' GROUP BY state
    UNION ALL
    SELECT 'blocked_workspaces', NULL, count(*) FROM workspaces WHERE blocked_reason IS NOT NULL
    UNION ALL
    SELECT 'tokens_expiring', NULL, count(*) FROM change_requests
      WHERE due_at IS NOT NULL AND commit_token_sealed IS NOT NULL AND token_expires_at < now() + interval '1 day'
    UNION ALL
    SELECT 'chain_head_block', chain_id::text, head_number FROM chain_cursors WHERE head_number IS NOT NULL
    UNION ALL
    SELECT 'chain_final_lag_blocks', chain_id::text, head_number - final_number FROM chain_cursors
      WHERE head_number IS NOT NULL AND final_number IS NOT NULL
    UNION ALL
    SELECT 'chain_read_age_seconds', chain_id::text, extract(epoch FROM now() - coalesce(looked_at, due_at))
      FROM chain_cursors
    UNION ALL
    SELECT 'queue_round_trip_age_seconds', substr(kind, length('queue:') + 1), extract(epoch FROM now() - max(seen_at))
      FROM heartbeats WHERE kind LIKE 'queue:%' GROUP BY kind
    """
)


class Figure(NamedTuple):
    """A value by the name of its metric, and of its label if it has one."""

    name: str
    labels: tuple[str, ...]
    value: float


def of_the_deployment(database: Database) -> Iterator[Figure]:
    """What the database knows; when it does not answer, only that."""
    try:
        with faults_in_one_line():
            with database.reads() as session:
                found = session.execute(_FIGURES).all()
            parts = readiness.look(database)
    except DatabaseFault:
        yield Figure("database_up", (), 0)
        return
    yield Figure("database_up", (), 1)
    for name, label, value in found:
        yield Figure(name, () if label is None else (label,), float(value))
    for part in parts:
        yield Figure("part_condition", (part.name,), _CONDITIONS[part.condition])


def of_the_pool(database: Database) -> Iterator[Figure]:
    """How many connections this process has, and may have."""
    pool = database.engine.pool
    if isinstance(pool, QueuePool):
        yield Figure("database_connections", ("in_use",), pool.checkedout())
        yield Figure("database_connections", ("idle",), pool.checkedin())
        yield Figure("database_connections", ("most",), 2 * pool.size())
