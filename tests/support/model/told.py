"""A story told at random, for whoever needs a database that has seen much."""

import random

from service.store.database import Database
from tests.support.model.happenings import HAPPENINGS, Choice
from tests.support.model.world import World


def tell(database: Database, seed: int, steps: int) -> World:
    """A world after a submission and so many happenings, between which workers go on; all follows from the seed."""
    roll = random.Random(seed)  # noqa: S311 - a mixture, no secret
    world = World(database, hears=True)
    HAPPENINGS["submit a patch"](world, Choice(cvm=0, patch=0, which=1, after=False))
    go_on(world, roll, steps)
    return world


def go_on(world: World, roll: random.Random, steps: int) -> None:
    """More of the same."""
    for _ in range(steps):
        by = Choice(roll.randrange(3), roll.randrange(2), roll.randrange(12), after=roll.random() < 0.5)
        HAPPENINGS[roll.choice(sorted(HAPPENINGS))](world, by)
        world.let_pass(61)
        world.observe()
        world.sweep()
