from collections.abc import Iterator

import pytest

from sandbox.anvil import Anvil
from sandbox.chain.local import LocalChain
from sandbox.jsonrpc import JsonRpc
from sandbox.phala_cloud.control import Control
from sandbox.phala_cloud.server import running
from tests.support.phala_cloud import OnChainCvm, Receiver, Team, receiving


@pytest.fixture(scope="session")
def phala_anvil() -> Iterator[Anvil]:
    with Anvil() as anvil:
        yield anvil


@pytest.fixture(scope="session")
def chain(phala_anvil: Anvil) -> Iterator[LocalChain]:
    rpc = JsonRpc(phala_anvil.rpc_url)
    yield LocalChain(rpc)
    rpc.close()


@pytest.fixture(scope="session")
def control(phala_anvil: Anvil, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    database = tmp_path_factory.mktemp("phala") / "phala.sqlite3"
    with running(database, rpc_url=phala_anvil.rpc_url) as url, Control(url) as control:
        control.settings(accept_seconds=0.02, restart_seconds=0.05, stream_time_scale=0.01)
        yield control


@pytest.fixture
def team(control: Control) -> Iterator[Team]:
    team = Team.create(control)
    yield team
    team.api.close()
    control.clear_faults()


@pytest.fixture
def cvm(team: Team, chain: LocalChain) -> OnChainCvm:
    return OnChainCvm.create(team, chain)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver
