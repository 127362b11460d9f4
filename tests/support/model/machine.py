"""The rules: whatever can happen to a change request, in any order, on the real store with the real steps."""

from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.store.database import Database
from tests.support.model.drain import drain
from tests.support.model.happenings import HAPPENINGS, Choice
from tests.support.model.interrupts import Fate
from tests.support.model.invariants import check, check_ends
from tests.support.model.tally import Tally
from tests.support.model.world import World

WHAT: Final = st.sampled_from(list(HAPPENINGS))
BY: Final = st.builds(Choice, st.integers(0, 2), st.integers(0, 1), st.integers(0, 11), st.booleans())
WRITES: Final = ("commit", "prepare", "post", "delete")
"""Calls that change something outside."""
BETWEEN: Final = 61
"""Seconds after which nearly everything that waits is due."""


class Machine(RuleBasedStateMachine):
    """A subclass names the database, and who counts what happened in a story when it ends."""

    database: Database
    told: Tally

    @initialize(hears=st.booleans(), cvm=st.integers(0, 2), patch=st.integers(0, 1))
    def begin(self, hears: bool, cvm: int, patch: int) -> None:
        self.world = World(self.database, hears=hears)
        self.checked = 0
        HAPPENINGS["submit a patch"](self.world, Choice(cvm, patch, 1, after=False))

    @rule(what=WHAT, by=BY)
    def happens(self, what: str, by: Choice) -> None:
        HAPPENINGS[what](self.world, by)

    @rule(what=WHAT, by=BY, seconds=st.sampled_from([0, 2, 15, BETWEEN, BETWEEN]))
    def happens_and_workers_go_on(self, what: str, by: Choice, seconds: int) -> None:
        HAPPENINGS[what](self.world, by)
        self.workers_go_on(seconds)

    @rule(seconds=st.sampled_from([1, 20, 700, 4000, 90_000, 1_000_000]))
    def time_passes(self, seconds: int) -> None:
        self.world.let_pass(seconds)

    @rule(seconds=st.sampled_from([0, 15, BETWEEN]))
    def workers_go_on(self, seconds: int) -> None:
        """A block, a look at the chain, and two sweeps: what goes on while nobody does anything."""
        self.world.let_pass(seconds)
        self.world.observe()
        self.world.sweep()
        self.world.sweep()

    @rule(
        which=st.integers(0, 3),
        fate=st.sampled_from(Fate),
        at=st.one_of(st.sampled_from(WRITES), st.integers(0, 8)),
        after=st.booleans(),
        meanwhile=st.lists(st.tuples(WHAT, BY), max_size=2),
        taken_over=st.booleans(),
    )
    def a_worker_is_interrupted(
        self, which: int, fate: Fate, at: int | str, after: bool, meanwhile: list[tuple[str, Choice]], taken_over: bool
    ) -> None:
        """It dies or freezes at a call; frozen, its row is taken over and more happens before it wakes."""
        world = self.world
        world.let_pass(BETWEEN)
        due = [*world.due_requests(), *world.due_proposals()]
        if not due:
            return
        row_id = due[which % len(due)]

        def more() -> None:
            for what, by in meanwhile:
                HAPPENINGS[what](world, by)
            if taken_over:
                world.serve(row_id)

        world.interrupted(fate, at, more, after=after)
        world.serve(row_id)

    @invariant()
    def nothing_is_broken(self) -> None:
        """Only a transition can break what held before it."""
        if hasattr(self, "world") and self.world.transitions != self.checked:
            check(self.world)
            self.checked = self.world.transitions

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            drain(self.world)
            self.nothing_is_broken()
            check_ends(self.world)
        finally:
            self.told.add(self.world)
            self.world.close()
