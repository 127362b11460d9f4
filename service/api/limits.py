"""How much one key may ask: so many requests in a minute, so many at once."""

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from service.api.problems import RATE_LIMITED, TOO_MANY_AT_ONCE, Problem
from service.domain.token_bucket import Quota
from service.store import rate_buckets
from service.store.database import Database
from service.wiring import ApiLimits

_SOON: Final = {"Retry-After": "1"}


@dataclass(slots=True)
class _Share:
    """What this process holds of a key's quota, what was left in the bucket, and until when that was nothing."""

    tokens: int = 0
    left: float = 0.0
    looked_at: float = -math.inf
    empty_until: float = -math.inf


class RateLimit:
    """Takes requests out of the key's bucket in the database, a batch at a time.

    All processes draw from one bucket, so that a second process does not double what a key may do; what they hold of it
    is a twentieth of a minute's quota each.
    """

    def __init__(self, database: Database, quota: Quota) -> None:
        """Take where the buckets are, and how large they are."""
        self._database = database
        self._quota = quota
        self._shares: dict[str, _Share] = {}
        self._lock = threading.Lock()

    def take(self, key_id: str) -> Mapping[str, str]:
        """Count one request; the headers that tell how many are left.

        Raises:
            Problem: ``rate_limited``.
        """
        share = self._take_held(key_id)
        if share is None:
            draw = rate_buckets.draw(self._database, key_id, self._quota)
            share = self._keep(key_id, draw)
        if share.empty_until > time.monotonic():
            wait = math.ceil(share.empty_until - time.monotonic())
            headers = {**self._headers(share), "Retry-After": str(max(1, wait))}
            detail = f"The key made its {self._quota.per_minute} requests of this minute."
            raise Problem(RATE_LIMITED, detail, headers=headers)
        return self._headers(share)

    def _take_held(self, key_id: str) -> _Share | None:
        with self._lock:
            share = self._shares.setdefault(key_id, _Share())
            if share.tokens > 0:
                share.tokens -= 1
                return share
            return share if share.empty_until > time.monotonic() else None

    def _keep(self, key_id: str, draw: rate_buckets.Draw) -> _Share:
        now = time.monotonic()
        with self._lock:
            share = self._shares[key_id]
            share.left, share.looked_at = draw.left, now
            if draw.taken:
                share.tokens += draw.taken - 1
            else:
                share.empty_until = now + self._quota.seconds_until_one(draw.left)
            return share

    def _headers(self, share: _Share) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers-10 names them."""
        there = self._quota.refilled(share.left, time.monotonic() - share.looked_at) + share.tokens
        left = min(self._quota.per_minute, there)
        return {
            "RateLimit-Policy": f'"key";q={self._quota.per_minute};w=60',
            "RateLimit": f'"key";r={math.floor(left)};t={self._quota.seconds_until_full(left)}',
        }


class Concurrency:
    """Counts the requests of each key that run in this process; those that wait for a change count apart.

    It guards this process's threads, so it is this process's own count. Used by the event loop only.
    """

    def __init__(self, limits: ApiLimits) -> None:
        """Take how many of each kind."""
        self._most = {False: limits.at_once, True: limits.waits_at_once}
        self._running: Counter[tuple[str, bool]] = Counter()

    @contextmanager
    def slot(self, key_id: str, *, waits: bool) -> Iterator[None]:
        """Run a request in the block.

        Raises:
            Problem: ``too_many_at_once``.
        """
        kind = (key_id, waits)
        if self._running[kind] >= self._most[waits]:
            what = "requests with `wait`" if waits else "requests"
            raise Problem(TOO_MANY_AT_ONCE, f"{self._most[waits]} {what} of this key run already.", headers=_SOON)
        self._running[kind] += 1
        try:
            yield
        finally:
            self._running[kind] -= 1
            if not self._running[kind]:
                del self._running[kind]
