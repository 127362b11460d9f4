"""A real anvil for tests."""

from collections.abc import Iterator

import pytest

from sandbox.anvil import Anvil


@pytest.fixture(scope="module")
def module_anvil() -> Iterator[Anvil]:
    with Anvil() as anvil:
        yield anvil


@pytest.fixture
def anvil(module_anvil: Anvil) -> Iterator[Anvil]:
    """The module's chain as it was when the test began: what a test changes is undone after it."""
    snapshot = module_anvil.rpc("evm_snapshot")
    yield module_anvil
    module_anvil.rpc("evm_revert", [snapshot])
