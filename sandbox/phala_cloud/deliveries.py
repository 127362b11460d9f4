"""The thread that delivers webhooks: ten seconds each, up to three retries, 2xx alone counts."""

import json
import sqlite3
import time

import httpx

from sandbox.phala_cloud import webhooks
from sandbox.phala_cloud.world import World

RETRY_AFTER_SECONDS = (60.0, 600.0, 3600.0)
_TIMEOUT_SECONDS = 10.0
_NOTHING_DUE = 60.0


class Deliverer:
    """Sends what is due by the sandbox's clock.

    Signatures carry real time: the receiver judges them by its own clock.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._client = httpx.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=False)

    def work(self) -> float:
        """Send everything due; answers the seconds until the next attempt is."""
        for row in self._due():
            self._attempt(row)
        soonest = self._world.database.one(
            "SELECT min(next_attempt_at) AS at FROM deliveries WHERE next_attempt_at IS NOT NULL",
        )
        if soonest is None or soonest["at"] is None:
            return _NOTHING_DUE
        return max(0.0, float(soonest["at"]) - self._world.clock.now())

    def close(self) -> None:
        """Close the connections to receivers."""
        self._client.close()

    def _due(self) -> list[sqlite3.Row]:
        return self._world.database.all(
            "SELECT d.*, w.secret AS secret, w.url AS url"
            " FROM deliveries d JOIN webhooks w ON w.id = d.webhook_id"
            " WHERE d.next_attempt_at <= ? ORDER BY d.next_attempt_at, d.id",
            self._world.clock.now(),
        )

    def _attempt(self, row: sqlite3.Row) -> None:
        signed_at = int(time.time())
        if row["first_signed_at"] is not None and not self._world.settings.get().resign_retries:
            signed_at = row["first_signed_at"]
        headers = webhooks.headers(row["event_id"], row["event_type"], row["secret"], signed_at, row["body"])
        started = time.monotonic()
        status, fault = 0, ""
        try:
            status = self._client.post(row["url"], content=row["body"], headers=headers).status_code
        except httpx.HTTPError as error:
            fault = type(error).__name__
        self._apply(row, signed_at, status, fault, int((time.monotonic() - started) * 1000))

    def _apply(self, row: sqlite3.Row, signed_at: int, status: int, fault: str, duration_ms: int) -> None:
        now = self._world.clock.now()
        attempts = row["attempts"] + 1
        delivered = httpx.codes.is_success(status)
        exhausted = attempts > len(RETRY_AFTER_SECONDS)
        retry_at = None if delivered or exhausted else now + RETRY_AFTER_SECONDS[attempts - 1]
        with self._world.database.transaction():
            self._world.database.update(
                "deliveries",
                row["id"],
                status="success" if delivered else "failed" if exhausted else "pending",
                attempts=attempts,
                next_attempt_at=retry_at,
                first_signed_at=row["first_signed_at"] or signed_at,
                request_url=row["url"],
                response_status=status,
                error_message=fault or ("" if delivered else f"HTTP {status}"),
                duration_ms=duration_ms,
                delivered_at=now if delivered else None,
            )
            self._world.record(
                "delivery",
                json.loads(row["body"])["data"].get("cvm_id"),
                event_id=row["event_id"],
                event=row["event_type"],
                webhook_id=row["webhook_id"],
                attempt=attempts,
                response_status=status,
                error=fault,
            )
