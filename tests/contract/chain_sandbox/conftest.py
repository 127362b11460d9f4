from collections.abc import Iterator

import pytest

from sandbox.anvil import Anvil
from sandbox.chain.local import LocalChain
from sandbox.jsonrpc import JsonRpc
from tests.support.anvil import anvil, module_anvil

__all__ = ["anvil", "module_anvil"]


@pytest.fixture
def chain(anvil: Anvil) -> Iterator[LocalChain]:
    with JsonRpc(anvil.rpc_url) as rpc:
        yield LocalChain(rpc)
