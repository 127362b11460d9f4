"""A token bucket: filled evenly up to its capacity, emptied by requests. Pure."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quota:
    """So many requests in a minute: capacity of the bucket, and how fast it fills."""

    per_minute: int

    @property
    def per_second(self) -> float:
        """Tokens that come each second."""
        return self.per_minute / 60

    @property
    def batch(self) -> int:
        """Tokens that a process takes at once: few enough not to matter, enough not to ask for each request."""
        return max(1, self.per_minute // 20)

    def refilled(self, tokens: float, elapsed: float) -> float:
        """Tokens after ``elapsed`` seconds."""
        return min(float(self.per_minute), tokens + max(elapsed, 0.0) * self.per_second)

    def draw(self, tokens: float, elapsed: float) -> tuple[int, float]:
        """Take a batch, or what there is of it.

        Args:
            tokens: in the bucket when it was last looked at.
            elapsed: seconds since then.

        Returns:
            Whole tokens taken, and what is left.
        """
        there = self.refilled(tokens, elapsed)
        taken = min(self.batch, math.floor(there))
        return taken, there - taken

    def seconds_until_one(self, tokens: float) -> float:
        """Until a bucket with less than one token has one."""
        return max(0.0, (1 - tokens) / self.per_second)

    def seconds_until_full(self, tokens: float) -> int:
        """Until the whole quota is there again, rounded up."""
        return math.ceil((self.per_minute - tokens) / self.per_second)
