"""Withdrawal, rejection and reorg with real Safes of the versions that the flow tests do not use, on a real chain."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from sandbox.anvil import Anvil
from sandbox.chain.accounts import DELEGATE, OUTSIDER, OWNERS
from sandbox.chain.apps import deploy_dstack_app, transfer_to_safe
from sandbox.chain.local import LocalChain
from sandbox.chain.safes import SafeVersion, next_nonce
from sandbox.jsonrpc import JsonRpc
from sandbox.safe_service.server import running
from service.adapters.chain import JsonRpcChain
from service.adapters.safe import TransactionService
from service.domain.calls import rejection_call
from service.domain.finality import Confirmations
from service.domain.snapshots import Proposal as Snapshot
from service.domain.snapshots import ProposalState, SafeTransaction, SafeTransactionState
from service.domain.states import State
from service.store import wishes
from service.store.database import Database
from service.store.leases import LeaseKeeper
from service.store.tables import ChangeRequest, Proposal
from service.wiring import Timings, WorkerParts
from tests.support import rows
from tests.support.fake_phala import FakeAccounts, FakePhala
from tests.support.fakes import FixedClock
from tests.support.members import snapshot
from tests.support.queue_worlds import RealQueueWorld, signer_of
from workers import serve

pytestmark = pytest.mark.chain

DEPTH = 2


@pytest.fixture(scope="module")
def anvil() -> Iterator[Anvil]:
    with Anvil() as anvil:
        yield anvil


@pytest.fixture(scope="module")
def address(anvil: Anvil, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("safe") / "safe.sqlite", rpc_url=anvil.rpc_url) as address:
        yield address


@dataclass
class Approval:
    """A change request whose approval a Safe's owners have before them."""

    anvil: Anvil
    world: RealQueueWorld
    parts: WorkerParts
    workspace: str
    request_id: str

    def serve_request(self) -> State | None:
        rows.shift(self.parts.database, ChangeRequest, self.request_id, due_at=0)
        return serve.serve_request(self.parts, self.request_id)

    def serve_proposal(self) -> ProposalState | None:
        rows.shift(self.parts.database, Proposal, self.proposal.id, due_at=0)
        return serve.serve_proposal(self.parts, self.proposal.id)

    @property
    def proposal(self) -> Snapshot:
        proposal_id = rows.read(self.parts.database, ChangeRequest, self.request_id).proposal_id
        return snapshot(self.parts.database, proposal_id)

    @property
    def transaction(self) -> SafeTransaction:
        transaction = self.proposal.transaction
        assert transaction is not None
        return transaction

    def cancel(self) -> None:
        wishes.wish_cancel(self.parts.database, self.workspace, self.request_id, rows.NOW, rows.ACTOR)
        assert self.serve_request() is State.CANCELLED

    def reject(self) -> None:
        """The owners execute an empty transaction at the approval's nonce, and it becomes final."""
        rejection = self.world.transaction(self.transaction.nonce, rejection_call(self.world.safe))
        self.world.post(rejection, OWNERS[0])
        self.world.execute(rejection)
        self.mine()

    def mine(self) -> None:
        """What is mined becomes final."""
        self.anvil.rpc("anvil_mine", [hex(DEPTH)])

    def queued(self) -> list[str]:
        """Whom what can still be executed calls."""
        nonce = next_nonce(self.world.chain, self.world.safe)
        return [row.to for row in self.world.queue.pending(self.world.safe, nonce)]


@pytest.fixture(params=["1.3.0", "1.5.0"])
def approval(request: pytest.FixtureRequest, anvil: Anvil, address: str, database: Database) -> Iterator[Approval]:
    version: SafeVersion = request.param
    with (
        closing(JsonRpc(anvil.rpc_url)) as rpc,
        httpx.Client(base_url=address, timeout=20) as client,
        closing(TransactionService(address, chain_id=anvil.chain_id, signer=signer_of(DELEGATE))) as queue,
        closing(JsonRpcChain(anvil.chain_id, [anvil.rpc_url], Confirmations(DEPTH))) as chain,
    ):
        world = RealQueueWorld(LocalChain(rpc), address, client, queue, version)
        app = deploy_dstack_app(world.chain, allow_any_device=True)
        transfer_to_safe(world.chain, app, world.safe)
        workspace = rows.workspace(database, safes=[(anvil.chain_id, world.safe)])
        clock = FixedClock(rows.NOW)
        links: dict[str, Any] = {"chains": {anvil.chain_id: chain}, "queues": {anvil.chain_id: queue}}
        timings = Timings(observe=5, safe_poll=60, recheck=600, track=5)
        signer, accounts = signer_of(DELEGATE), FakeAccounts(FakePhala(clock))
        links |= {"phala": accounts, "poster": None, "signer": signer, "timings": timings}
        parts = WorkerParts(database, clock, LeaseKeeper(database), **links)
        request_id = rows.change_request(database, workspace, State.PREPARED, app_contract=app)
        waiting = Approval(anvil, world, parts, workspace, request_id)
        waiting.serve_request()
        assert waiting.serve_proposal() is ProposalState.QUEUED
        assert waiting.serve_request() is State.PROPOSED
        yield waiting


def test_an_approval_that_nobody_signed_is_taken_out_of_the_queue(approval: Approval):
    approval.cancel()
    assert approval.serve_proposal() is ProposalState.WITHDRAWN
    assert approval.queued() == []


def test_a_signed_approval_gets_a_rejection_which_the_owners_can_execute(approval: Approval):
    approval.world.confirm(approval.transaction, OWNERS[0])
    approval.cancel()

    assert approval.serve_proposal() is ProposalState.WITHDRAWN

    rejection = approval.proposal.rejection
    assert rejection is not None
    assert sorted(approval.queued()) == sorted([approval.transaction.call.to, approval.world.safe])
    approval.world.execute(rejection)
    assert approval.queued() == [], "both were at one nonce"


def test_a_rejection_that_is_final_ends_the_request(approval: Approval):
    approval.reject()

    assert approval.serve_proposal() is ProposalState.REJECTED

    assert approval.serve_request() is State.REJECTED
    assert approval.transaction.state is SafeTransactionState.REPLACED


def test_an_approval_whose_block_vanishes_is_waited_for_again(approval: Approval):
    approval.world.execute(approval.transaction)
    assert approval.serve_request() is State.EXECUTED
    # Without a transaction of its own the new branch can have the very same blocks.
    transfer = {"from": OUTSIDER.address, "to": OUTSIDER.address, "value": "0x1"}
    approval.anvil.rpc("anvil_reorg", [1, [[transfer, 0]]])

    assert approval.serve_request() is State.PREPARED

    assert approval.serve_proposal() is ProposalState.QUEUED
    approval.world.execute(approval.transaction)
    assert approval.serve_request() is State.EXECUTED
    approval.mine()
    assert approval.serve_request() is State.REGISTERED
    assert approval.serve_proposal() is ProposalState.APPROVED
    assert approval.transaction.state is SafeTransactionState.EXECUTED
    assert approval.proposal.approved_at_block is not None
