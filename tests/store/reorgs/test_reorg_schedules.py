"""500 random schedules of reorgs: nobody commits on a block that is not final, and no approval is missed.

Each batch tells stories of a chain on which five change requests wait at once, each for an approval of its own. A
failure names its seed; `COUNTERSIGN_TEST_REORG_SEED=<seed>` replays that story, block for block.
"""

import gc
import logging
import os
from collections.abc import Callable, Iterator

import pytest

from sandbox.anvil import Anvil
from sandbox.chain.local import LocalChain
from sandbox.jsonrpc import JsonRpc
from service.store.database import Database
from tests.support.reorg_chain import BranchingChain, InterruptingTransport
from tests.support.reorg_runs import Counts, Run
from tests.support.reorg_stories import story

SCHEDULES = 5
STORIES = 10
BATCHES = 10
GENESIS_SECONDS = 1_700_000_000

_REPLAYED = os.environ.get("COUNTERSIGN_TEST_REORG_SEED")
_BATCHES = [range(batch * STORIES, (batch + 1) * STORIES) for batch in range(BATCHES)]
_SEEDS = _BATCHES if _REPLAYED is None else [range(int(_REPLAYED), int(_REPLAYED) + 1)]


@pytest.fixture
def chain() -> Iterator[BranchingChain]:
    with Anvil(timestamp=GENESIS_SECONDS) as anvil, JsonRpc(anvil.rpc_url) as rpc:
        yield BranchingChain(anvil, LocalChain(rpc), SCHEDULES)


@pytest.fixture
def transport() -> Iterator[InterruptingTransport]:
    transport = InterruptingTransport()
    yield transport
    transport.close()


@pytest.fixture
def unwatched_heap() -> Iterator[None]:
    """What stands when a batch begins is no garbage: not looking through it again saves a fifth of the time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.fault(
    "chain",
    "Random reorgs of random depth",
    "whoever is approved at a final block is committed, nobody else",
    "the next blocks",
)
@pytest.mark.usefixtures("unwatched_heap")
@pytest.mark.parametrize("seeds", _SEEDS, ids=[f"{seeds[0]}-{seeds[-1]}" for seeds in _SEEDS])
def test_whoever_is_final_commits_and_nobody_else(
    seeds: range,
    chain: BranchingChain,
    transport: InterruptingTransport,
    database: Database,
    record_property: Callable[[str, object], None],
    caplog: pytest.LogCaptureFixture,
):
    counts = Counts()
    for seed in seeds:
        told = story(seed, SCHEDULES)
        run = Run(told, database, chain, transport)
        try:
            run.tell()
            run.check(counts)
        except Exception as error:
            raise AssertionError(f"COUNTERSIGN_TEST_REORG_SEED={seed}: {error!r}\n{told}") from error
        finally:
            run.close()
    for name, number in vars(counts).items():
        record_property(name, number)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR], "a step had a defect"
    assert counts.schedules == len(seeds) * SCHEDULES
    assert _REPLAYED or min(counts.reorgs, counts.undone, counts.commits, counts.facts_orphaned) > 0, counts
