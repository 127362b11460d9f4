"""What happened in the stories so far."""

from collections import Counter
from typing import Final

from service.store.database import Prepared
from tests.support.model.world import World

_EDGES: Final = Prepared(
    "SELECT previous, state FROM (SELECT state, lag(state) OVER (PARTITION BY change_request_id ORDER BY seq) previous"
    " FROM events WHERE type = 'change_request.' || state) taken WHERE previous IS NOT NULL",
    {},
)


class Tally:
    """Counts of stories.

    Attributes:
        edges: how often each edge of the transition table was taken.
    """

    def __init__(self) -> None:
        self.stories = 0
        self.transitions = 0
        self.interruptions = 0
        self.edges: Counter[tuple[str, str]] = Counter()

    @property
    def changes_of_state(self) -> int:
        """How often an edge was taken."""
        return self.edges.total()

    def add(self, world: World) -> None:
        """A story has ended; its rows are still there."""
        self.stories += 1
        self.transitions += world.transitions
        self.interruptions += world.interrupts.happened
        self.edges.update((source, target) for source, target in world.database.execute(_EDGES, {}))
