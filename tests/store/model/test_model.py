"""Whatever happens, in whatever order: nothing is lost, nothing is done twice, everything ends as it must.

Each batch makes its share of the transitions (`--transitions` says how many in all). A failure shows its story, and the
seed of it: `--model-seed` begins the first batch with that seed.
"""

import itertools
import logging
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from service.domain.states import State
from service.store.database import Database
from tests.support.model.machine import Machine
from tests.support.model.tally import Tally

BATCHES: Final = 4
MOST_STORIES: Final = 7
"""Of one seed."""
OF_A_STORY: Final = 200
"""Transitions, about."""
STORIES: Final = settings(
    stateful_step_count=100,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
MAIN_LINE: Final = set(
    itertools.pairwise(state.value for state in itertools.takewhile(lambda one: one is not State.REJECTED, State))
)
ENOUGH: Final = 2000
"""Transitions of a batch in which the whole main line is sure to be taken."""


@pytest.mark.fault(
    "workers",
    "Any of all this, in any order, at any call of a step, also at once",
    "what must never be in the database or in what the outside took is not; everything ends as it must",
    "until everything is well again, then minutes",
)
@pytest.mark.timeout(0)
@pytest.mark.parametrize("batch", range(BATCHES))
def test_nothing_is_lost_and_nothing_done_twice(
    batch: int,
    database: Database,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
    caplog: pytest.LogCaptureFixture,
):
    wanted = request.config.getoption("--transitions") // BATCHES
    tally, place = Tally(), database

    class OnThisDatabase(Machine):
        database = place
        told = tally

    for number in itertools.count(request.config.getoption("--model-seed") + batch * 1_000_000):
        try:
            stories = min(MOST_STORIES, 1 + (wanted - tally.transitions) // OF_A_STORY)
            some = settings(STORIES, max_examples=stories)
            run_state_machine_as_test(seed(number)(OnThisDatabase), settings=some)
        except BaseException as error:
            error.add_note(f"--model-seed={number}")
            raise
        if tally.transitions >= wanted:
            break
    for name in ("transitions", "changes_of_state", "stories", "interruptions"):
        record_property(name.replace("_", " "), getattr(tally, name))
    assert tally.transitions >= wanted, "fewer transitions than were asked for"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR], "a step had a defect"
    assert tally.transitions < ENOUGH or (set(tally.edges) >= MAIN_LINE and tally.interruptions), tally.edges
