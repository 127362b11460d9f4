"""Countersign's own processes, as a test drives them."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from sandbox.processes import ManagedProcess, ProcessGroup


@pytest.fixture
def process_group() -> Iterator[ProcessGroup]:
    """Processes that are stopped when the test ends, the youngest first."""
    with ProcessGroup() as group:
        yield group


def countersign(
    *arguments: str, env: Mapping[str, str], log_dir: Path, ready: Callable[[], bool] = lambda: True
) -> ManagedProcess:
    """Return `countersign <arguments>`, not yet started, which sees these COUNTERSIGN_ variables and no others."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")}
    return ManagedProcess(
        " ".join(("countersign", *arguments)),
        [Path(sys.executable).with_name("countersign"), *arguments],
        log_path=log_dir / f"{arguments[0]}.log",
        ready=ready,
        ready_seconds=60,
        env=ours | dict(env),
    )


def answers(url: str) -> Callable[[], bool]:
    """Return the condition that a GET of the URL is answered with success."""

    def condition() -> bool:
        try:
            return httpx.get(url, timeout=5).is_success
        except httpx.TransportError:
            return False

    return condition
