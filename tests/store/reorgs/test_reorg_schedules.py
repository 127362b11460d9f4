"""Random schedules of reorgs: nobody commits on a block that is not final, and no approval is missed.

`COUNTERSIGN_TEST_REORG_SEED` replays the story of one seed, as the message of a failure names it.
"""

import gc
import os
from collections.abc import Callable, Iterator

import pytest

from sandbox.anvil import Anvil
from sandbox.chain.local import LocalChain
from sandbox.jsonrpc import JsonRpc
from service.store.database import Database
from tests.support.anvil import module_anvil
from tests.support.reorg_chain import BranchingChain, InterruptingTransport
from tests.support.reorg_runs import Counts, Run
from tests.support.reorg_stories import story

__all__ = ["module_anvil"]

STORIES = 50
SCHEDULES = 10


@pytest.fixture
def chain(module_anvil: Anvil) -> Iterator[BranchingChain]:
    with JsonRpc(module_anvil.rpc_url) as rpc:
        yield BranchingChain(module_anvil, LocalChain(rpc), SCHEDULES)


@pytest.fixture
def transport() -> Iterator[InterruptingTransport]:
    transport = InterruptingTransport()
    yield transport
    transport.close()


def test_random_reorgs(
    module_anvil: Anvil, chain: BranchingChain, transport: InterruptingTransport, database: Database,
    record_property: Callable[[str, object], None],
):
    replayed = os.environ.get("COUNTERSIGN_TEST_REORG_SEED")
    counts = Counts()
    gc.collect(); gc.freeze()
    for seed in range(STORIES) if replayed is None else (int(replayed),):
        told = story(seed, SCHEDULES)
        run = Run(told, database, chain, module_anvil.rpc_url, transport)
        try:
            run.tell()
            run.check(counts)
        except Exception as error:
            raise AssertionError(f"COUNTERSIGN_TEST_REORG_SEED={seed}: {error!r}\n{told}") from error
        run.close()
    print(counts)
