"""Whatever owners, strangers and faults do to one Safe's queue: no two of ours at one nonce, no silent hole, an end."""

import pytest

from service.domain.snapshots import ProposalState
from service.store.database import Database
from service.store.leases import LeaseKeeper
from service.wiring import Timings, WorkerParts
from tests.support.fakes import FakeSigner, FixedClock
from tests.support.queue_life import QueueLife, left_in_queue


@pytest.fixture
def parts(database: Database) -> WorkerParts:
    nobody: dict[str, None] = {}
    return WorkerParts(
        database=database,
        clock=FixedClock(),
        keeper=LeaseKeeper(database),
        chains={},
        queues={},
        signer=FakeSigner(),
        timings=Timings(observe=5, safe_poll=60, recheck=600, track=5),
        poster=nobody,  # type: ignore[arg-type]  # nothing is posted
        phala=nobody,  # type: ignore[arg-type]  # likewise
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_queue_comes_to_rest_and_to_an_end(database: Database, workspace: str, parts: WorkerParts, seed: int):
    life = QueueLife(database, workspace, parts, seed)
    for _ in range(80):
        life.anything()
        nonces = life.live_nonces()
        assert len(nonces) == len(set(nonces))
    life.settle()
    nonces = life.live_nonces()
    assert len(nonces) == len(set(nonces))
    waiting = [each for each in life.proposals() if each.state in (ProposalState.POSTING, ProposalState.QUEUED)]
    assert len(waiting) == len(nonces), [(each.state, each.detail) for each in waiting]
    assert life.untold_holes() == set()
    for each in left_in_queue(life):
        assert each.detail, "somebody must be told"
    life.drain()
