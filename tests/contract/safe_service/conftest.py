from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.anvil import Anvil
from tests.support.anvil import anvil, module_anvil
from tests.support.safe_service import SafeWorld, safe_world

__all__ = ["anvil", "module_anvil"]


@pytest.fixture
def world(anvil: Anvil, tmp_path: Path) -> Iterator[SafeWorld]:
    with safe_world(anvil.rpc_url, tmp_path / "safe.sqlite") as world:
        yield world
