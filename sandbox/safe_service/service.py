"""What every part of the service works with."""

from dataclasses import dataclass, field

from sandbox.safe_service import clock
from sandbox.safe_service.chain_view import ChainView
from sandbox.safe_service.database import Database


@dataclass(frozen=True)
class Service:
    """State, chain and time.

    Attributes:
        database: what it remembers.
        chain: what it reads live.
        now: the time it stamps and checks signatures with.
    """

    database: Database
    chain: ChainView
    now: clock.Clock = field(default=clock.system_clock)

    def micros(self) -> int:
        """The time now as the database keeps it."""
        return clock.to_micros(self.now())
