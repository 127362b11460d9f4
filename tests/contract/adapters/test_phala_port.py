"""What the steps may rely on, held against the real adapter on the Phala Cloud sandbox and against the fake."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from sandbox.anvil import Anvil
from sandbox.chain.local import LocalChain
from sandbox.jsonrpc import JsonRpc
from sandbox.phala_cloud.control import Control
from sandbox.phala_cloud.server import running
from sandbox.polling import wait_for
from service.adapters.phala import PhalaAdapter
from service.domain.errors import NotFound, TokenDead
from service.domain.phala_facts import AppliedAtOnce, Hook, OperationStatus, PendingUpdate, Prepared, Running
from service.domain.recovery import PENDING_APPROVAL
from service.phala import PhalaCloud
from service.ports import Phala
from tests.support.fake_phala import FakePhala
from tests.support.fakes import FixedClock
from tests.support.phala_cloud import NEXT_COMPOSE, OnChainCvm, Receiver, Team, receiving

pytestmark = pytest.mark.chain

PATCH = {"docker_compose_file": NEXT_COMPOSE}
UNKNOWN = "7d444840-9dc0-41d1-b245-5ffdce74fad2"


class PhalaWorld(ABC):
    """A running CVM with on-chain KMS."""

    phala: Phala
    vm_uuid: str
    name: str

    @abstractmethod
    def now(self) -> datetime:
        """Phala Cloud's time."""

    @abstractmethod
    def register(self, compose_hash: str) -> str:
        """The app's owner allows the hash; the transaction hash."""

    @abstractmethod
    def settle(self) -> None:
        """Let the running operation end well."""

    @abstractmethod
    def hook(self, url: str) -> str:
        """Register a receiver of prepares; its id."""

    def prepare(self) -> Prepared:
        prepared = self.phala.prepare(self.vm_uuid, PATCH)
        assert isinstance(prepared, Prepared)
        return prepared


class FakePhalaWorld(PhalaWorld):
    def __init__(self) -> None:
        self._clock = FixedClock()
        self._fake = FakePhala(self._clock)
        self.phala = self._fake
        self.vm_uuid, self.name = self._fake.info.vm_uuid, self._fake.info.name

    def now(self) -> datetime:
        return self._clock.now()

    def register(self, compose_hash: str) -> str:
        return "0x" + compose_hash[2:][::-1]

    def settle(self) -> None:
        self._clock.advance(seconds=1)
        self._fake.finish(OperationStatus.COMPLETED)

    def hook(self, url: str) -> str:
        self._fake.hooks.append(Hook("whk_1", url, enabled=True, events=frozenset({PENDING_APPROVAL})))
        return "whk_1"


class RealPhalaWorld(PhalaWorld):
    def __init__(self, cvm: OnChainCvm, phala: PhalaAdapter) -> None:
        self._cvm = cvm
        self.phala = phala
        self.vm_uuid, self.name = cvm.vm_uuid, str(cvm.info["name"])

    def now(self) -> datetime:
        return datetime.now(UTC)

    def register(self, compose_hash: str) -> str:
        return self._cvm.register(compose_hash[2:])

    def settle(self) -> None:
        self._cvm.settle()

    def hook(self, url: str) -> str:
        made = self._cvm.team.control.register_webhook(self._cvm.team.slug, url, events=[PENDING_APPROVAL])
        return str(made["id"])


@pytest.fixture(scope="module")
def node() -> Iterator[LocalChain]:
    with Anvil() as anvil, closing(JsonRpc(anvil.rpc_url)) as rpc:
        yield LocalChain(rpc)


@pytest.fixture(scope="module")
def control(node: LocalChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    database = tmp_path_factory.mktemp("phala") / "phala.sqlite3"
    with running(database, rpc_url=node.rpc.url) as url, Control(url) as control:
        control.settings(accept_seconds=0.02, restart_seconds=0.05)
        yield control


@pytest.fixture
def real(control: Control, node: LocalChain) -> Iterator[RealPhalaWorld]:
    team = Team.create(control)
    with team.api, closing(PhalaAdapter(PhalaCloud(api_key=team.api_key, base_url=control.api_url))) as phala:
        yield RealPhalaWorld(OnChainCvm.create(team, node), phala)


@pytest.fixture(params=["real", "fake"])
def world(request: pytest.FixtureRequest) -> PhalaWorld:
    if request.param == "fake":
        return FakePhalaWorld()
    real: RealPhalaWorld = request.getfixturevalue("real")
    return real


def test_a_cvm_is_known_by_name_and_uuid(world: PhalaWorld):
    cvm = world.phala.cvm(world.name)
    assert cvm == world.phala.cvm(world.vm_uuid)
    assert (cvm.vm_uuid, cvm.chain_id, cvm.status) == (world.vm_uuid, 31337, "running")
    assert cvm.app_contract is not None
    with pytest.raises(NotFound):
        world.phala.cvm(UNKNOWN)


def test_preparing_again_gives_the_same_hash_and_kills_the_token(world: PhalaWorld):
    cvm, first, second = world.phala.cvm(world.vm_uuid), world.prepare(), world.prepare()
    assert (first.app_contract, first.chain_id, first.device_id) == (cvm.app_contract, cvm.chain_id, cvm.device_id)
    assert first.compose_hash == second.compose_hash != cvm.compose_hash
    assert first.commit_token != second.commit_token
    transaction_hash = world.register(first.compose_hash)
    with pytest.raises(TokenDead):
        world.phala.commit(world.vm_uuid, first.commit_token, first.compose_hash, transaction_hash)
    assert world.phala.commit(world.vm_uuid, second.commit_token, second.compose_hash, transaction_hash)


def test_a_token_commits_no_other_hash(world: PhalaWorld):
    prepared = world.prepare()
    other = "0x" + "9f" * 32
    transaction_hash = world.register(other)
    with pytest.raises(TokenDead):
        world.phala.commit(world.vm_uuid, prepared.commit_token, other, transaction_hash)


def test_from_commit_to_running(world: PhalaWorld):
    started = world.now()
    prepared = world.prepare()
    assert list(world.phala.operations(world.vm_uuid, started)) == []
    transaction_hash = world.register(prepared.compose_hash)
    correlation_id = world.phala.commit(world.vm_uuid, prepared.commit_token, prepared.compose_hash, transaction_hash)
    world.settle()
    (operation,) = world.phala.operations(world.vm_uuid, started)
    assert (operation.correlation_id, operation.status) == (correlation_id, OperationStatus.COMPLETED)
    assert (operation.compose_hash, operation.error) == (prepared.compose_hash, None)
    assert operation.started_at >= started
    assert list(world.phala.operations(world.vm_uuid, operation.started_at + timedelta(milliseconds=1))) == []
    assert world.phala.running(world.vm_uuid) == Running(prepared.compose_hash, prepared.compose_hash, "running")
    with pytest.raises(TokenDead):
        world.phala.commit(world.vm_uuid, prepared.commit_token, prepared.compose_hash, transaction_hash)


def test_a_patch_that_moves_no_hash_is_applied_at_once(world: PhalaWorld):
    started = world.now()
    applied = world.phala.prepare(world.vm_uuid, {"vcpu": 2})
    assert isinstance(applied, AppliedAtOnce)
    (operation,) = world.phala.operations(world.vm_uuid, started)
    assert operation.correlation_id == applied.correlation_id


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def test_what_was_sent_is_listed_and_sent_again_under_another_id(world: PhalaWorld, receiver: Receiver):
    started = world.now() - timedelta(seconds=1)
    hook_id = world.hook(receiver.url)
    assert list(world.phala.webhooks()) == [
        Hook(hook_id, receiver.url, enabled=True, events=frozenset({PENDING_APPROVAL}))
    ]
    assert list(world.phala.hook_deliveries(hook_id, started)) == []
    world.prepare()
    (first,) = world.phala.hook_deliveries(hook_id, started)
    assert (first.event_type, first.original_id, first.failed) == (PENDING_APPROVAL, first.event_id, False)
    assert wait_for(lambda: world.phala.hook_deliveries(hook_id, started)[0].delivered, 10)

    world.phala.resend(hook_id, first.event_id)

    again, _ = world.phala.hook_deliveries(hook_id, started)
    assert again.event_id != again.original_id == first.event_id
    with pytest.raises(NotFound):
        world.phala.resend(hook_id, "evt_0000000000000000")
    assert list(world.phala.hook_deliveries(hook_id, again.created_at + timedelta(days=1))) == []


def test_an_update_waits_until_it_is_committed(world: PhalaWorld):
    app_contract = world.phala.cvm(world.vm_uuid).app_contract
    assert app_contract is not None
    assert list(world.phala.pending_updates(app_contract)) == []
    prepared = world.prepare()
    assert list(world.phala.pending_updates(app_contract)) == [PendingUpdate(world.vm_uuid, prepared.compose_hash)]
    assert list(world.phala.pending_updates("0x" + "77" * 20)) == []
    transaction_hash = world.register(prepared.compose_hash)
    world.phala.commit(world.vm_uuid, prepared.commit_token, prepared.compose_hash, transaction_hash)
    assert list(world.phala.pending_updates(app_contract)) == []
