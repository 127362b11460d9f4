"""A backup is restored after the world went on: the chain and Phala Cloud are asked, and nothing is done twice."""

import subprocess
from pathlib import Path

import pytest
from sqlalchemy import Engine

from sandbox.postgres_files import programs
from service.domain.phala_facts import OperationStatus
from service.domain.states import State
from service.store.database import Database, make_engine
from service.store.tables import ChangeRequest
from tests.support import rows
from tests.support.model.drain import drain
from tests.support.model.invariants import check_ends
from tests.support.model.world import PATCHES, World
from tests.support.postgres import NewDatabase


def _program(name: str, *arguments: str) -> None:
    command = [str(programs(Path(), None) / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _url(engine: Engine) -> str:
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


class Story:
    """One change request on its way, by hand."""

    def __init__(self, database: Database) -> None:
        self.world = World(database, hears=True)
        self.world.submit(0, PATCHES[0], None, 30)
        (self.request_id,) = self.world.live()

    @property
    def state(self) -> State:
        return State(rows.read(self.world.database, ChangeRequest, self.request_id).state)

    def go_on(self, until: State) -> None:
        """Carry it on, owners and Phala Cloud doing their part no earlier than is needed."""
        for _ in range(40):
            if self.state is until:
                return
            self._one_step(until)
        raise AssertionError(f"still {self.state}, not {until}")

    def _one_step(self, until: State) -> None:
        world = self.world
        if self.state is State.PROPOSED and world.queue.waiting():
            for owner in (0, 1):
                world.sign(0, owner)
            world.execute(0)
        if until is State.COMPLETED:
            world.finish(0, OperationStatus.COMPLETED)
        if self.state is not State.PROPOSED:
            world.chain.mine(empty=world.chain.depth)
        world.let_pass(61)
        world.observe()
        for request_id in world.due_requests():
            world.serve_request(request_id)
        if self.state is not State.PREPARED or until is not State.PREPARED:
            for proposal_id in world.due_proposals():
                world.serve_proposal(proposal_id)


@pytest.mark.fault(
    "people",
    "A backup is restored: taken before the proposal was posted, the commit sent, or the end; the world went on since",
    "the chain, the queue and Phala Cloud are asked: no second proposal, no second commit, the right end",
    "the next looks",
)
@pytest.mark.parametrize(
    ("taken", "restored"),
    [
        (State.PREPARED, State.PROPOSED),
        (State.PREPARED, State.REGISTERED),
        (State.PREPARED, State.COMPLETED),
        (State.PROPOSED, State.COMPLETED),
        (State.REGISTERED, State.COMMITTED),
        (State.REGISTERED, State.COMPLETED),
        (State.COMMITTED, State.COMPLETED),
    ],
)
def test_nothing_is_done_twice(
    database: Database, empty_database: NewDatabase, tmp_path: Path, taken: State, restored: State
):
    story = Story(database)
    world, backup = story.world, tmp_path / "countersign.dump"
    story.go_on(taken)
    _program("pg_dump", "--format=custom", f"--file={backup}", _url(database.engine))
    story.go_on(restored)
    world.sign(0, 0)  # where it still waits: the signature must not be for nothing
    with empty_database() as url:
        _program("pg_restore", "--no-owner", f"--dbname={url}", str(backup))
        engine = make_engine(url)
        world.move_to(Database(engine, rows.sealer(), public_url=database.public_url))
        assert story.state is taken
        world.let_pass(20)  # until the lease of whoever held a row when the backup was taken is over

        story.go_on(State.COMPLETED)
        drain(world)

        assert story.state is State.COMPLETED
        check_ends(world)
        engine.dispose()
    assert len(set(world.queue.posts)) == len(world.queue.posts) == 1
    assert [one.by_service for cvm in world.cvms for one in cvm.accepted] == [True]
    assert len(world.cvms[0].history) == 1
    assert list(world.chain.executed()) == world.queue.posts
