"""The requests that a key has left, shared by all processes of the API."""

from dataclasses import dataclass

from sqlalchemy import text

from service.domain.token_bucket import Quota
from service.store.database import Database

# A lost write gives a few requests back, so nobody waits for the disk.
_IN_HURRY = text("SET LOCAL synchronous_commit = off")
_FILL = text("""
    INSERT INTO rate_buckets (key_id, tokens, looked_at) VALUES (:key_id, :capacity, clock_timestamp())
    ON CONFLICT DO NOTHING
""")
_LOOK = text("""
    SELECT tokens, extract(epoch FROM clock_timestamp() - looked_at)::float8 AS elapsed FROM rate_buckets
    WHERE key_id = :key_id FOR UPDATE
""")
_KEEP = text("UPDATE rate_buckets SET tokens = :tokens, looked_at = clock_timestamp() WHERE key_id = :key_id")


@dataclass(frozen=True, slots=True)
class Draw:
    """Tokens taken for a process, and those left in the bucket."""

    taken: int
    left: float


def draw(database: Database, key_id: str, quota: Quota) -> Draw:
    """Take a batch of requests out of a key's bucket, which is full at first."""
    with database.transaction() as session:
        session.execute(_IN_HURRY)
        session.execute(_FILL, {"key_id": key_id, "capacity": quota.per_minute})
        row = session.execute(_LOOK, {"key_id": key_id}).one()
        taken, left = quota.draw(row.tokens, row.elapsed)
        session.execute(_KEEP, {"key_id": key_id, "tokens": left})
    return Draw(taken, left)
