from collections.abc import Iterator

import pytest

from sandbox.anvil import Anvil
from sandbox.chain.local import LocalChain
from sandbox.jsonrpc import JsonRpc
from service.adapters.chain import JsonRpcChain
from service.domain.finality import Confirmations
from tests.support.anvil import anvil, module_anvil
from tests.support.hostile_http import Counting

__all__ = ["anvil", "module_anvil"]


@pytest.fixture
def local(anvil: Anvil) -> Iterator[LocalChain]:
    rpc = JsonRpc(anvil.rpc_url)
    yield LocalChain(rpc)
    rpc.close()


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def chain(anvil: Anvil, counting: Counting) -> Iterator[JsonRpcChain]:
    chain = JsonRpcChain(anvil.chain_id, [anvil.rpc_url], Confirmations(2), transport=counting)
    yield chain
    chain.close()
