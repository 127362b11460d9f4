"""A chain that nobody read for days: what happened is found, and the way there is shown."""

from collections.abc import Iterator

import pytest

from sandbox.anvil import Anvil
from sandbox.chain.accounts import DEPLOYER
from sandbox.chain.apps import deploy_dstack_app
from sandbox.chain.local import LocalChain, encode_call
from sandbox.jsonrpc import JsonRpc
from sandbox.rpc_proxy import RangeLimit, RpcProxy
from service.adapters.chain import JsonRpcChain
from service.domain.finality import Confirmations
from service.domain.states import State
from service.steps.observe import MAX_RANGES, observe
from service.store import observations
from service.store.database import Database
from tests.support import rows
from tests.support.served_api import Api

pytestmark = pytest.mark.chain

BLOCKS_AWAY = 600
BLOCKS_IN_A_RANGE = 20
BLOCKS_OF_THE_PROVIDER = 7


@pytest.fixture
def anvil() -> Iterator[Anvil]:
    with Anvil() as anvil:
        yield anvil


@pytest.fixture
def chain(anvil: Anvil) -> Iterator[JsonRpcChain]:
    """The chain behind a provider that gives the logs of few blocks at once."""
    with RpcProxy(anvil.rpc_url, behaviour=RangeLimit(BLOCKS_OF_THE_PROVIDER)) as proxy:
        chain = JsonRpcChain(anvil.chain_id, [proxy.url], Confirmations(2))
        yield chain
        chain.close()


@pytest.fixture
def local(anvil: Anvil) -> Iterator[LocalChain]:
    rpc = JsonRpc(anvil.rpc_url)
    yield LocalChain(rpc)
    rpc.close()


def _look(database: Database, chain: JsonRpcChain) -> list[str]:
    """Read on as a worker does, in shorter ranges; the change requests that have news."""
    look = observations.take(database, chain.chain_id)
    assert look is not None, "a chain that is behind is due at once"
    seen = observe(chain, look.cursor, look.known, BLOCKS_IN_A_RANGE)
    applied = observations.apply(database, look.lease, seen, interval_seconds=0, now=rows.NOW)
    return [request_id for request_id, _ in applied.rung]


def _shown(api: Api, chain_id: int) -> tuple[str, int | None]:
    """What the API says of the chain, and how many blocks are left."""
    (chain,) = [one for one in api.acme.get("/v1/chains").json()["items"] if one["id"] == chain_id]
    return chain["status"], chain["catch_up"] and chain["catch_up"]["blocks_left"]


def test_an_approval_many_blocks_ago_is_found(
    api: Api, workspaces: dict[str, str], database: Database, anvil: Anvil, local: LocalChain, chain: JsonRpcChain
):
    app = deploy_dstack_app(local, "two-step", DEPLOYER.address, device=bytes(32), compose_hash=bytes(32))
    request_id = rows.change_request(
        database, workspaces["acme"], State.PROPOSED, chain_id=chain.chain_id, app_contract=app
    )
    anvil.rpc("anvil_mine", [hex(BLOCKS_AWAY // 2)])
    observations.ensure_chains(database, [chain.chain_id])
    assert _look(database, chain) == []
    assert _shown(api, chain.chain_id) == ("up_to_date", None)

    anvil.rpc("anvil_mine", [hex(BLOCKS_AWAY // 2)])
    approval = encode_call("addComposeHash(bytes32)", bytes.fromhex(rows.COMPOSE_HASH[2:]))
    local.send(DEPLOYER.address, app, approval)
    anvil.rpc("anvil_mine", [hex(BLOCKS_AWAY // 2)])

    rung, shown = [], []
    for _ in range(BLOCKS_AWAY // (BLOCKS_IN_A_RANGE * MAX_RANGES) + 1):
        rung += _look(database, chain)
        shown.append(_shown(api, chain.chain_id))
    *on_the_way, at_the_end = shown
    assert {status for status, _ in on_the_way} == {"catching_up"}
    assert at_the_end == ("up_to_date", None)
    left = [blocks for _, blocks in on_the_way if blocks is not None]
    assert len(left) == len(on_the_way)
    assert left == sorted(set(left), reverse=True)
    assert request_id in rung
