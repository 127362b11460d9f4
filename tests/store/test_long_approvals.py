"""Approvals that take longer than a commit token lives: workers, days and Phala Cloud's webhooks in one process."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from service.domain.chain import FactKind, SafeState
from service.domain.errors import Nonsense, Unreachable
from service.domain.phala_facts import AppliedAtOnce, OperationStatus, Prepared
from service.domain.prepares import TOKEN_LIFETIME
from service.domain.reasons import Reason
from service.domain.states import TERMINAL, State
from service.store import inbound, leases, refreshing, request_lists, requests
from service.store.database import Database
from service.store.leases import LeaseKeeper
from service.store.requests import PreparedUpdate, Submission
from service.store.tables import ChangeRequest, Proposal
from service.wiring import Timings, WorkerParts
from tests.support import rows
from tests.support.builders import DEVICE, PATCH, SAFE, VM_UUID
from tests.support.fake_chain import FakeChain
from tests.support.fake_phala import FakePhala
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner, FixedClock
from tests.support.heard import told_of
from tests.support.threads import together
from workers import serve

OTHER_PATCH = {"docker_compose_file": "services:\n  web:\n    image: nginx:1.30\n"}
DOWN = Unreachable("503", reason=Reason.PHALA_UNREACHABLE)


class TellingPhala(FakePhala):
    """Tells of each prepare before it answers, as Phala Cloud's webhooks may."""

    def __init__(self, clock: FixedClock, database: Database, workspace: str) -> None:
        super().__init__(clock)
        self.down = False
        self._database, self._workspace = database, workspace

    def prepare(self, vm_uuid: str, patch: Mapping[str, Any]) -> Prepared | AppliedAtOnce:
        if self.down:
            raise DOWN
        return super().prepare(vm_uuid, patch)

    def _prepare(self, vm_uuid: str, patch: Mapping[str, Any]) -> Prepared | AppliedAtOnce:
        answer = super()._prepare(vm_uuid, patch)
        assert isinstance(answer, Prepared)
        now = self.clock.now()
        event_id = f"evt_{answer.commit_token.get_secret_value()}"
        inbound.hear(self._database, self._workspace, told_of(answer, event_id, vm_uuid, name=None, at=now), now)
        return answer


class World:
    """One workspace, its CVM, and a worker that is told when to look."""

    def __init__(self, database: Database, workspace: str) -> None:
        self.database, self.workspace = database, workspace
        self.clock = FixedClock()
        self.phala = TellingPhala(self.clock, database, workspace)
        self.chain = FakeChain()
        signer, owner = FakeSigner(), FakeSigner(11)
        self.chain.safes[SAFE] = SafeState(SAFE, "1.4.1", (owner.address,), 1, 0)
        self.chain.mine((FactKind.DEVICE_ADDED, DEVICE), empty=self.chain.depth)
        queue = FakeSafeQueue([owner.address], {signer.address: frozenset({owner.address})})
        outside: dict[str, Any] = {
            "chains": {rows.CHAIN_ID: self.chain},
            "queues": {rows.CHAIN_ID: queue},
            "signer": signer,
            "poster": None,
            "phala": self,
        }
        self.parts = WorkerParts(
            database=database,
            clock=self.clock,
            keeper=LeaseKeeper(database),
            timings=Timings(observe=5, safe_poll=60, recheck=600, track=5),
            **outside,
        )

    def of(self, workspace_id: str) -> FakePhala:
        assert workspace_id == self.workspace
        return self.phala

    def submit(self, patch: dict[str, Any] | None = PATCH, prepared: PreparedUpdate | None = None) -> str:
        submission = Submission(
            workspace_id=self.workspace,
            cvm_id=VM_UUID,
            patch=patch,
            prepared=prepared,
            title=None,
            allow_without_approval=False,
            warnings=(),
            deadline_seconds=None,
        )
        return requests.submit(self.database, submission, self.clock.now(), rows.ACTOR).id

    def prepare_elsewhere(self, patch: dict[str, Any] = PATCH) -> PreparedUpdate:
        answer = self.phala.prepare(VM_UUID, patch)
        assert isinstance(answer, Prepared)
        assert answer.chain_id is not None
        return PreparedUpdate(
            answer.chain_id, answer.app_contract, answer.device_id, answer.compose_hash, answer.commit_token
        )

    def serve(self, request_id: str) -> State:
        """Look once, whenever the row says; and at its proposal."""
        self.chain.mine()
        if self.row(request_id).due_at is not None:
            rows.shift(self.database, ChangeRequest, request_id, due_at=-1)
            serve.serve_request(self.parts, request_id)
        proposal_id = self.row(request_id).proposal_id
        if proposal_id is not None and rows.read(self.database, Proposal, proposal_id).due_at is not None:
            rows.shift(self.database, Proposal, proposal_id, due_at=-1)
            serve.serve_proposal(self.parts, proposal_id)
        return State(self.row(request_id).state)

    def serve_until(self, request_id: str, *states: State) -> None:
        for _ in range(20):
            state = self.serve(request_id)
            if state in states:
                return
            assert state not in TERMINAL, self.row(request_id).reason
        raise AssertionError(f"still {state}: {self.row(request_id).reason}, {self.row(request_id).detail}")

    def let_pass(self, request_id: str, *, days: int, looks: int = 1) -> None:
        """Time, with so many looks a day."""
        for _ in range(days * looks):
            self.clock.advance(days=1 / looks)
            self.serve(request_id)

    def approve(self, request_id: str) -> None:
        compose_hash = self.row(request_id).compose_hash
        self.chain.mine((FactKind.HASH_ADDED, compose_hash), empty=self.chain.depth)

    def complete(self, request_id: str) -> None:
        self.approve(request_id)
        self.serve_until(request_id, State.COMMITTED)
        self.phala.finish(OperationStatus.COMPLETED)
        self.serve_until(request_id, State.COMPLETED)

    def row(self, request_id: str) -> ChangeRequest:
        row: ChangeRequest = rows.read(self.database, ChangeRequest, request_id)
        return row

    def told(self, request_id: str, *names: str) -> list[str]:
        """The events of these names in order."""
        found = [event.type.removeprefix("change_request.") for event in rows.events(self.database, request_id)]
        return [name for name in found if name in names]

    def all_requests(self) -> list[str]:
        with self.database.transaction() as session:
            filters = request_lists.Filters()
            return [row.id for row in request_lists.listing(session, self.workspace, filters, limit=100)][::-1]

    @contextmanager
    def phala_down(self) -> Iterator[None]:
        self.phala.down = True
        yield
        self.phala.down = False


@pytest.fixture
def world(database: Database, workspace: str) -> World:
    return World(database, workspace)


@pytest.fixture
def proposed(world: World) -> str:
    request_id = world.submit()
    world.serve_until(request_id, State.PROPOSED)
    return request_id


def test_our_own_prepare_makes_no_second_request(world: World, proposed: str):
    world.serve(proposed)
    assert world.all_requests() == [proposed]
    assert world.told(proposed, "token_refreshed", "superseded") == []


def test_with_a_patch_the_token_is_renewed_while_owners_sign(world: World, proposed: str):
    world.let_pass(proposed, days=20)
    assert world.row(proposed).state == State.PROPOSED
    world.complete(proposed)
    assert world.told(proposed, "token_refreshed", "expiring") == ["token_refreshed"]
    assert world.phala.calls.count("prepare") == 2
    assert world.all_requests() == [proposed]


def test_without_a_patch_it_expires_with_its_token(world: World):
    request_id = _heard(world)
    world.let_pass(request_id, days=13)
    assert world.told(request_id, "expiring") == ["expiring", "expiring"]
    world.let_pass(request_id, days=1, looks=8)
    assert world.told(request_id, "expiring") == ["expiring"] * 3, "each mark once, however often it is looked at"
    assert (world.row(request_id).state, world.row(request_id).reason) == (State.EXPIRED, Reason.TOKEN_EXPIRED)


def test_a_token_that_is_handed_in_carries_it_over(world: World):
    request_id = _heard(world)
    world.let_pass(request_id, days=13)
    refreshing.hand_in(
        world.database, world.workspace, request_id, _untold(world), VM_UUID, world.clock.now(), rows.ACTOR
    )
    world.let_pass(request_id, days=7)
    assert world.row(request_id).state == State.PROPOSED
    world.complete(request_id)
    assert world.all_requests() == [request_id]


def test_a_prepare_elsewhere_of_the_same_update_carries_it_over(world: World):
    request_id = _heard(world)
    world.let_pass(request_id, days=13)
    world.prepare_elsewhere()
    world.let_pass(request_id, days=7)
    world.complete(request_id)
    assert world.told(request_id, "token_refreshed") == ["token_refreshed"]
    assert world.all_requests() == [request_id]


@pytest.mark.fault(
    "Phala Cloud",
    "Phala Cloud is down while a token has to be renewed",
    "the approval is seen all the same; the renewal is tried again",
    "1 to 60 s after it is back, the pause between tries",
)
def test_while_phala_cloud_is_down_the_approval_is_still_seen(world: World, proposed: str):
    with world.phala_down():
        world.let_pass(proposed, days=15)
        row = world.row(proposed)
        assert (row.state, row.refresh_reason, row.reason) == (
            State.PROPOSED,
            Reason.PHALA_UNREACHABLE,
            Reason.WAITING_FOR_OWNERS,
        )
        assert row.refresh_attempts > 1
        world.approve(proposed)
        world.serve_until(proposed, State.REGISTERED)
    world.serve_until(proposed, State.COMMITTED)
    assert world.row(proposed).refresh_attempts == 0


@pytest.mark.fault(
    "people",
    "Somebody prepares another update of the CVM",
    "`superseded`; the newer one becomes a request",
    "the next look",
)
def test_a_prepare_elsewhere_of_another_update_takes_its_place(world: World, proposed: str):
    world.clock.advance(minutes=5)
    other = world.prepare_elsewhere(OTHER_PATCH)
    world.serve_until(proposed, State.SUPERSEDED)
    assert world.row(proposed).reason == Reason.SUPERSEDED_BY_PREPARE
    assert world.row(proposed).commit_token_sealed is None
    _, newer = world.all_requests()
    assert world.row(newer).compose_hash == other.compose_hash
    world.serve_until(newer, State.PROPOSED)
    world.complete(newer)


def test_a_wish_for_a_fresh_token_is_served(world: World, proposed: str):
    before = world.row(proposed).commit_token_fingerprint
    world.clock.advance(days=1)
    refreshing.wish_refresh(world.database, world.workspace, proposed, world.clock.now(), rows.ACTOR)
    world.serve(proposed)
    row = world.row(proposed)
    assert row.commit_token_fingerprint != before
    assert (row.refresh_requested_at, row.token_expires_at) == (None, world.clock.now() + TOKEN_LIFETIME)


@pytest.mark.fault(
    "Phala Cloud",
    "It prepares, the answer is lost",
    "the token comes by webhook; it is not prepared again",
    "the next look",
)
def test_an_answer_that_is_lost_is_read_back_by_its_echo(world: World, proposed: str):
    world.clock.advance(days=11)
    world.phala.fail("prepare", Nonsense("cut off", reason=Reason.PHALA_UNREACHABLE), after_effect=True)
    world.serve(proposed)
    assert world.row(proposed).refresh_attempted_at is not None
    world.serve(proposed)
    assert world.phala.calls.count("prepare") == 2, "the token came by webhook"
    assert world.row(proposed).refresh_attempted_at is None
    world.complete(proposed)


@pytest.mark.fault(
    "workers",
    "A worker dies between a renewing prepare and its answer",
    "the token is taken from Phala Cloud's webhook, it is not prepared again",
    "15 s, and 1 s of sweep",
)
def test_a_worker_that_dies_after_the_prepare_loses_nothing(world: World, proposed: str):
    """Its lease ends; another takes the row, hears the echo of the token that was never stored, and goes on."""
    world.clock.advance(days=11)
    rows.shift(world.database, ChangeRequest, proposed, due_at=-1)
    assert leases.acquire(world.database, ChangeRequest, proposed) is not None
    world.phala.prepare(VM_UUID, PATCH)
    rows.shift(world.database, ChangeRequest, proposed, lease_until=-1)
    world.complete(proposed)
    assert world.told(proposed, "token_refreshed") == ["token_refreshed"]


def test_workers_that_look_at_once_tell_once(world: World):
    request_id = _heard(world)
    world.clock.advance(days=11)
    rows.shift(world.database, ChangeRequest, request_id, due_at=-1)
    together([lambda: serve.serve_request(world.parts, request_id) for _ in range(4)])
    world.serve(request_id)
    assert world.told(request_id, "expiring") == ["expiring"]


def _heard(world: World) -> str:
    """A request that nobody submitted: it is proposed."""
    world.prepare_elsewhere()
    (request_id,) = world.all_requests()
    world.serve_until(request_id, State.PROPOSED)
    return request_id


def _untold(world: World) -> PreparedUpdate:
    """A prepare whose webhook never arrives."""
    answer = FakePhala._prepare(world.phala, VM_UUID, PATCH)
    assert isinstance(answer, Prepared)
    assert answer.chain_id is not None
    token = SecretStr(answer.commit_token.get_secret_value())
    return PreparedUpdate(answer.chain_id, answer.app_contract, answer.device_id, answer.compose_hash, token)
