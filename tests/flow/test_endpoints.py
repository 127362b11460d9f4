"""A chain behind three RPC endpoints that fail in turn, and beside one that does not answer at all."""

import base64
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psycopg
import pytest

from sandbox.deployment import PROCESSES, Deployment
from sandbox.processes import ProcessGroup
from sandbox.rpc_proxy import Behaviour, Fail, Lag, Lie, NoLogs, Pass, RangeLimit, Refuse, RpcProxy, Stall
from service.domain.reasons import Reason
from service.domain.snapshots import ProposalState
from service.domain.states import State
from service.store.database import Database, make_engine
from service.store.sealing import Sealer
from tests.support import rows
from tests.support.stack import Json, Stack, compose, first_cvm

BROKEN_CHAIN = 999
WAITING_ON_THE_BROKEN_CHAIN = 20
AWAY = "10 minutes"
BLOCKS_AWAY = 300
LONG_AWAY = "3 days"
BLOCKS_LONG_AWAY = 1_000
BLOCKS_AT_ONCE = 20
LAG = 6
_TIMES = {
    "change_requests": ("due_at", "rung_at", "state_entered_at", "created_at", "updated_at", "prepared_at"),
    "proposals": ("due_at", "rung_at", "created_at", "updated_at"),
    "chain_cursors": ("due_at", "rung_at", "updated_at"),
}


@dataclass(frozen=True)
class Endpoints:
    """A deployment whose chain has three endpoints, and a second chain whose only one can be broken."""

    stack: Stack
    chain: tuple[RpcProxy, ...]
    broken: RpcProxy

    def behave(self, behaviour: Behaviour) -> None:
        for proxy in self.chain:
            proxy.behave(behaviour)


@pytest.fixture(scope="module")
def _running(running_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    world = running_stack.world
    with ExitStack() as open_, ProcessGroup() as group:
        *chain, broken = (open_.enter_context(RpcProxy(world.anvil.rpc_url)) for _ in range(4))
        broken.behave(Stall())
        common = {"finality": "confirmations:2", "safe_service_url": world.safe_service_url}
        chains = {
            world.anvil.chain_id: {"name": "anvil", "rpc_urls": [proxy.url for proxy in chain], **common},
            BROKEN_CHAIN: {"name": "broken", "rpc_urls": [broken.url], **common},
        }
        settings = {"COUNTERSIGN_CHAINS": json.dumps(chains), "COUNTERSIGN_HTTP_TIMEOUT_SECONDS": "3"}
        directory = tmp_path_factory.mktemp("endpoints")
        deployment = group.add(Deployment(directory, world, settings=settings, keep_database=False))
        stack = open_.enter_context(Stack(world, deployment, running_stack.receiver))
        yield Endpoints(stack, tuple(chain), broken)


@pytest.fixture
def endpoints(_running: Endpoints, stack: Stack) -> Iterator[Endpoints]:
    """All well at first; the session's stack heals the world they share."""
    assert stack.world is _running.stack.world
    yield _running
    _running.behave(Pass())
    _running.broken.behave(Stall())


def _assert_done_once(stack: Stack, cvm: str, request_id: str) -> None:
    completed = stack.wait_for(request_id, "completed", seconds=90)
    assert len(stack.accepted_commits(cvm)) == 1
    assert "0x" + stack.world.phala.cvm(cvm)["running_compose_hash"] == completed["compose_hash"]
    assert [event["seq"] for event in stack.events(request_id)] == list(range(1, len(stack.events(request_id)) + 1))


_rotation = itertools.cycle(range(3))


@pytest.mark.fault(
    "chain",
    "One of three endpoints errs, lags, lies or stalls",
    "outvoted by the other two",
    "0.5 s for one that stalls",
)
@pytest.mark.parametrize("behaviour", [NoLogs(), Lie(), Stall(), Lag(LAG)], ids=lambda one: type(one).__name__)
def test_one_of_three_that_fails_misses_nothing_and_decides_nothing(endpoints: Endpoints, behaviour: Behaviour):
    stack, failing = endpoints.stack, endpoints.chain[next(_rotation)]
    cvm = first_cvm(stack.world.add_app())
    stack.world.anvil.rpc("anvil_mine", [hex(LAG + 1)])  # the app is older than what one that lags knows
    failing.behave(behaviour)

    request_id = stack.submit(cvm, compose(f"one of three: {behaviour}"))
    stack.wait_for(request_id, "proposed", seconds=90)
    signed = stack.sign(request_id)
    assert stack.get(request_id)["state"] == "proposed"
    assert stack.accepted_commits(cvm) == []
    stack.execute(signed)

    _assert_done_once(stack, cvm, request_id)
    assert failing.requests


@pytest.mark.fault(
    "chain",
    "All RPC endpoints are down for ten minutes",
    "requests wait with `rpc_unreachable`; what happened is read afterwards",
    "1 to 60 s after they are back",
)
def test_all_endpoints_down_for_ten_minutes_lose_nothing(endpoints: Endpoints):
    stack = endpoints.stack
    cvms = stack.world.add_app(cvms=2).cvm_uuids
    signed_before = stack.submit(cvms[0], compose("all down, proposed before"))
    stack.wait_for(signed_before, "proposed")
    approval = stack.sign(signed_before)

    for proxy, behaviour in zip(endpoints.chain, (Refuse(), Stall(), Fail(503)), strict=True):
        proxy.behave(behaviour)
    stack.execute(approval)
    submitted_meanwhile = stack.submit(cvms[1], compose("all down, submitted meanwhile"))
    stack.wait_for_reason(submitted_meanwhile, Reason.RPC_UNREACHABLE, seconds=60)
    _let_pass(stack, AWAY)
    stack.world.anvil.rpc("anvil_mine", [hex(BLOCKS_AWAY)])
    assert stack.get(signed_before)["state"] == "proposed"
    endpoints.behave(Pass())

    stack.approve(submitted_meanwhile)
    for cvm, request_id in zip(cvms, (signed_before, submitted_meanwhile), strict=True):
        _assert_done_once(stack, cvm, request_id)


@pytest.mark.fault(
    "chain",
    "Countersign is down for days",
    "missed blocks are read in ranges; each request reads the allowlist itself",
    "the first look",
)
def test_what_happened_while_countersign_was_down_for_days_is_found(endpoints: Endpoints):
    stack = endpoints.stack
    cvm = first_cvm(stack.world.add_app())
    request_id = stack.submit(cvm, compose("down for days"))
    stack.wait_for(request_id, "proposed")
    approval = stack.sign(request_id)
    for name in PROCESSES:
        stack.deployment.process(name).stop()
    stack.execute(approval)
    stack.world.anvil.rpc("anvil_mine", [hex(BLOCKS_LONG_AWAY)])
    back_at = int(stack.world.anvil.rpc("eth_blockNumber"), 16)
    _let_pass(stack, LONG_AWAY)
    endpoints.behave(RangeLimit(BLOCKS_AT_ONCE))
    for name in PROCESSES:
        stack.restart(name)

    _assert_done_once(stack, cvm, request_id)
    stack.wait_until(lambda: _watched(stack)["read_to_block"] >= back_at)
    assert (_watched(stack)["status"], _watched(stack)["catch_up"]) == ("up_to_date", None)


def _watched(stack: Stack) -> Json:
    """What the API tells of the chain that works."""
    chains = stack.client.get("/v1/chains").raise_for_status().json()["items"]
    (chain,) = (chain for chain in chains if chain["id"] == stack.world.anvil.chain_id)
    return chain


def _let_pass(stack: Stack, away: str) -> None:
    """Move everything that Countersign remembers into the past, as if so much time had gone by."""
    with psycopg.connect(stack.deployment.database_url) as connection:
        for table, columns in _TIMES.items():
            moved = ", ".join(f"{column} = {column} - interval '{away}'" for column in columns)
            connection.execute(f"UPDATE {table} SET {moved}")  # noqa: S608 - our own names


@pytest.mark.fault(
    "chain",
    "One chain's endpoint takes connections and never answers",
    "requests on other chains go on",
    "no delay elsewhere",
)
def test_a_chain_that_does_not_answer_delays_nobody_elsewhere(endpoints: Endpoints):
    stack = endpoints.stack
    with _waiting_on_the_broken_chain(stack):
        endpoints.broken.reset_counts()
        beside_a_broken_chain = _seconds_to_complete(stack, "beside a broken chain")
        assert endpoints.broken.requests, "nobody asked the broken chain"
        endpoints.broken.behave(Fail(404))  # at once: it is no burden
        alone = _seconds_to_complete(stack, "alone")
    assert beside_a_broken_chain < 2 * alone + 3


def _seconds_to_complete(stack: Stack, tag: str) -> float:
    cvm = first_cvm(stack.world.add_app())
    started = time.monotonic()
    request_id = stack.submit(cvm, compose(tag))
    stack.approve(request_id)
    _assert_done_once(stack, cvm, request_id)
    return time.monotonic() - started


@contextmanager
def _waiting_on_the_broken_chain(stack: Stack) -> Iterator[None]:
    """Requests that wait for owners on the chain that does not answer, all of them due."""
    environment = stack.deployment.environment
    keys = json.loads(environment["COUNTERSIGN_ENCRYPTION_KEYS"])
    opened = {key_id: base64.b64decode(key) for key_id, key in keys.items()}
    sealer = Sealer(opened, base64.b64decode(environment["COUNTERSIGN_FINGERPRINT_KEY"]))
    engine = make_engine(stack.deployment.database_url)
    database = Database(engine, sealer)
    workspace_id = rows.workspace(database, "elsewhere", safes=[(BROKEN_CHAIN, rows.SAFE)])
    for number in range(WAITING_ON_THE_BROKEN_CHAIN):
        columns = {"chain_id": BROKEN_CHAIN, "compose_hash": f"0x{number:064x}"}
        proposal_id = rows.proposal(database, workspace_id, ProposalState.EXTERNAL, **columns)
        rows.change_request(database, workspace_id, State.PROPOSED, proposal_id=proposal_id, **columns)
    yield
    with psycopg.connect(stack.deployment.database_url) as connection:
        connection.execute("UPDATE change_requests SET due_at = NULL WHERE chain_id = %s", [BROKEN_CHAIN])
    engine.dispose()
