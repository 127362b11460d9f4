"""Whatever happens, in whatever order: nothing is lost, nothing is done twice, everything ends as it must.

Each batch makes its share of the transitions (`--transitions` says how many in all). A failure names the batch's seed
and the steps that lead to it; `--model-seed=<seed>` begins with that seed.
"""

import logging
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from service.store.database import Database
from tests.support.model.machine import Machine
from tests.support.model.tally import Tally
from service.domain.states import EDGES
EDGES_ = [(e.source.value, e.target.value) for e in EDGES]

BATCHES = 4
EXAMPLES_AT_ONCE = 10
STEPS = 100


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
    number = request.config.getoption("--model-seed")
    tally = Tally()

    class OnThisDatabase(Machine):
        told = tally

    OnThisDatabase.database = database
    stories = settings(
        max_examples=EXAMPLES_AT_ONCE,
        stateful_step_count=STEPS,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    number = number if number is not None else batch * 1_000_000
    while tally.transitions < wanted:
        try:
            run_state_machine_as_test(seed(number)(OnThisDatabase), settings=stories)
        except BaseException as error:
            error.add_note(f"--model-seed={number}")
            raise
        number += 1
    for name in ("transitions", "stories", "interruptions"):
        record_property(name, getattr(tally, name))
    print(tally.edges, set(EDGES_) - set(tally.edges))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR], "a step had a defect"
