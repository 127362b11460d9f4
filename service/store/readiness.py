"""What the database says about the parts of the deployment: no call to the outside."""

from sqlalchemy import text

from service.domain.readiness import QUEUE_PREFIX, Condition, Part, judge, workspaces_part
from service.store.database import Database

# The age of a chain is counted from its last answer, before the first one from when it should have been read.
# That of a Transaction Service from its last fault, which counts as long as no answer came after it.
_PARTS = text(
    """
    SELECT kind AS part, extract(epoch FROM now() - max(seen_at)) AS age, 0 AS failed FROM heartbeats
      WHERE kind LIKE 'queue:%' OR kind LIKE 'watch:%' OR kind = 'worker' GROUP BY kind
    UNION ALL
    SELECT 'chain:' || chain_id, extract(epoch FROM now() - coalesce(looked_at, due_at)), attempts FROM chain_cursors
    UNION ALL
    SELECT 'safe service:' || split_part(process, ':', 2),
        extract(epoch FROM now() - max(seen_at) FILTER (WHERE kind = 'safe service fault')),
        ((array_agg(kind ORDER BY seen_at DESC))[1] = 'safe service fault')::int
      FROM heartbeats WHERE kind IN ('safe service', 'safe service fault') GROUP BY split_part(process, ':', 2)
    """
)


_BLOCKED = text(
    """
    SELECT code, count(DISTINCT workspace_id) AS workspaces FROM (
      SELECT reason AS code, workspace_id FROM workspace_faults
      UNION ALL SELECT 'workspace_blocked', id FROM workspaces WHERE blocked_reason IS NOT NULL
    ) AS blocks GROUP BY code ORDER BY code
    """
)


def look(database: Database) -> list[Part]:
    """Every part that the database knows of, by name."""
    with database.transaction() as session:
        found = session.execute(_PARTS).all()
        blocked = {row.code: row.workspaces for row in session.execute(_BLOCKED)}
    parts = [judge(row.part, row.age, row.failed) for row in found]
    if not any(part.name.startswith(QUEUE_PREFIX) for part in parts):
        parts.append(Part("workers", Condition.DEGRADED, "no queue was ever served"))
    if blocked:
        parts.append(workspaces_part(blocked))
    return sorted(parts, key=lambda part: part.name)
