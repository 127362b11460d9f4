"""What the sandbox answers is of one moment, whatever its threads do between two reads."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.phala_cloud import control_routes, operations, seeding, shapes
from sandbox.phala_cloud.records import Cvm, cvm_by_id, running_operation
from sandbox.phala_cloud.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A sandbox whose threads do not run: nothing moves between two lines of a test."""
    world = World.open(tmp_path / "phala.sqlite3", None)
    yield world
    world.close()


@pytest.fixture
def cvm(world: World) -> Cvm:
    seeding.create_workspace(world, seeding.WorkspaceSeed(slug="team"))
    return seeding.create_cvm(world, seeding.CvmSeed(workspace="team", chain_id=None))


def test_a_cvm_that_came_up_after_its_row_was_read_is_not_idle_and_restarting(world: World, cvm: Cvm):
    world.settings.change(accept_seconds=0, restart_seconds=0)
    operations.start(world, cvm, "restart")
    world.database.update("cvms", cvm.id, status="restarting")
    read_before = cvm_by_id(world.database, cvm.id)
    operations.advance(world)
    answers = (
        shapes.cvm_info(world, read_before),
        shapes.legacy_cvm(world, read_before),
        shapes.cvm_status(world, read_before),
        control_routes.get_cvm(world, cvm.vm_uuid),
    )
    assert {(answer["status"], answer["in_progress"]) for answer in answers} == {("running", False)}


def test_a_hold_has_ended_when_its_release_is_answered(world: World, cvm: Cvm):
    control_routes.hold(world, cvm.vm_uuid, control_routes.HoldSeed())
    operations.advance(world)
    assert running_operation(world.database, cvm.id) is not None
    control_routes.release(world, cvm.vm_uuid)
    assert running_operation(world.database, cvm.id) is None
    control_routes.release(world, cvm.vm_uuid)
