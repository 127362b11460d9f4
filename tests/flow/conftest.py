"""One running world and one Countersign for all flow tests; each test brings an app or a CVM of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.deployment import Deployment, webhook_secret
from sandbox.processes import ProcessGroup
from sandbox.receiver import Receiver
from sandbox.world import World
from tests.support.otlp import collecting
from tests.support.stack import Stack


@pytest.fixture(scope="package")
def running_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack of all flow tests. It stops with them: its processes would take the time of those that follow."""
    directory: Path = tmp_path_factory.mktemp("flow")
    secret = webhook_secret()
    with Receiver(secret) as receiver, collecting() as collector, ProcessGroup() as group:
        world = group.add(World(directory / "world", more_safes=200))
        deployment = group.add(
            Deployment(
                directory / "countersign",
                world,
                webhooks=[(receiver.url, secret)],
                settings={"COUNTERSIGN_OTLP_ENDPOINT": collector.url},
                workspace={"allow_without_approval": True, "parallel_commits": 10},
                keep_database=False,
            )
        )
        with Stack(world, deployment, receiver, collector) as stack:
            yield stack


@pytest.fixture
def stack(running_stack: Stack) -> Iterator[Stack]:
    """The stack, whole again after each test: faults cleared, processes up, blocks mined."""
    yield running_stack
    running_stack.heal()
