"""Many proposals on one Safe, served on a real database, among owners and strangers who do what they like."""

import random
from dataclasses import replace
from typing import Any

from sqlalchemy import select, update

from service.domain.alerts import AlertCode
from service.domain.calls import SafeCall
from service.domain.chain import FactKind, SafeState
from service.domain.errors import LeaseLost, Refused, Unreachable
from service.domain.reasons import Reason
from service.domain.snapshots import LIVE_PROPOSAL, Proposal, ProposalState, SafeTransactionState
from service.domain.states import State
from service.ports import QueuedTransaction
from service.store import tables
from service.store.database import Database
from service.wiring import WorkerParts
from tests.support import rows
from tests.support.builders import SAFE, safe_transaction
from tests.support.fake_chain import FakeChain
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner, FixedClock
from tests.support.members import EVIDENCE, every_proposal, member, move, snapshot
from workers import serve

OWNERS = [FakeSigner(seed) for seed in (11, 12, 13)]
SIGNER = FakeSigner()


class QueueLife:
    """The Safe, its queue, and the proposals; every choice follows from the seed."""

    def __init__(self, database: Database, workspace: str, parts: WorkerParts, seed: int) -> None:
        self.database = database
        self.workspace = workspace
        self.roll = random.Random(seed)  # noqa: S311 - a mixture, no secret
        self.clock = FixedClock()
        self.chain = FakeChain()
        owners = tuple(owner.address for owner in OWNERS)
        self.chain.safes[SAFE] = SafeState(SAFE, "1.4.1", owners, 2, 0)
        self.queue = FakeSafeQueue(owners, {SIGNER.address: frozenset(owners)})
        links: dict[str, Any] = {"chains": {rows.CHAIN_ID: self.chain}, "queues": {rows.CHAIN_ID: self.queue}}
        self.parts = replace(parts, **links, signer=SIGNER, clock=self.clock)
        self.made = 0

    # what happens

    def submit(self) -> None:
        self.made += 1
        proposal_id = rows.proposal(
            self.database, self.workspace, ProposalState.POSTING, compose_hash=f"0x{self.made:064x}"
        )
        member(self.database, self.workspace, proposal_id)

    def leave(self) -> None:
        waiting = [each for each in self.proposals() if each.members and each.state in LIVE_PROPOSAL]
        if waiting:
            self._move(self.roll.choice(waiting), State.CANCELLED)

    def refuse(self) -> None:
        self.queue.fail("post", Refused("for no good reason"))

    def fault(self) -> None:
        method = self.roll.choice(["post", "delete", "pending", "get", "at_nonce"])
        lost = Unreachable("lost", reason=Reason.SAFE_SERVICE_UNREACHABLE, outcome_unknown=True)
        self.queue.fail(method, lost, after_effect=self.roll.random() < 0.5)

    def propose_other(self) -> None:
        self.made += 1
        nonce = self.nonce() + self.roll.randrange(4)
        self.queue.add(safe_transaction(nonce=nonce, call=SafeCall("0x" + "66" * 20, f"0x{self.made:08x}", 0)))

    def delete_one(self) -> None:
        pending = self.pending()
        if pending:
            self.queue.lose(self.roll.choice(pending).safe_tx_hash)

    def sign(self) -> None:
        pending = self.pending()
        if pending:
            tx_hash, owner = self.roll.choice(pending).safe_tx_hash, self.roll.choice(OWNERS)
            self.queue.confirm(tx_hash, owner.address, owner.sign(tx_hash))

    def execute(self) -> None:
        nonce = self.nonce()
        now = [row for row in self.pending() if row.nonce == nonce]
        if now:
            self._execute(self.roll.choice(now))

    def approve_elsewhere(self) -> None:
        waiting = [each for each in self.proposals() if each.members and each.state in LIVE_PROPOSAL]
        if waiting:
            each = self.roll.choice(waiting)
            self.chain.mine((FactKind.HASH_ADDED, each.compose_hash), empty=self.chain.depth)
            self._register(each)

    def serve(self) -> None:
        due = [each for each in every_proposal(self.database) if each.due_at is not None]
        if due:
            self._serve(self.roll.choice(due).id)

    def anything(self) -> None:
        kinds = [self.submit, self.leave, self.refuse, self.fault, self.propose_other, self.delete_one, self.sign]
        kinds += [self.execute, self.approve_elsewhere] + [self.serve] * 12
        self.clock.advance(minutes=2)
        self.roll.choice(kinds)()

    # until nothing more happens by itself

    def settle(self) -> None:
        self.queue.heal()
        for _ in range(30):
            self.clock.advance(days=8)
            before = self._picture()
            for each in every_proposal(self.database):
                if each.due_at is not None:
                    self._serve(each.id)
            if self._picture() == before:
                return
        told = [(each.state, each.detail) for each in self.proposals()]
        raise AssertionError(f"it does not come to rest: {told}")

    def drain(self) -> None:
        """Owners execute what is lowest, ours first, and fill what is missing, until none of ours waits."""
        for _ in range(100):
            self.settle()
            if not [each for each in self.proposals() if each.state in LIVE_PROPOSAL]:
                return
            now = [row for row in self.pending() if row.nonce == self.nonce()]
            ours = {each.transaction.safe_tx_hash for each in self.proposals() if each.transaction}
            now.sort(key=lambda row: row.safe_tx_hash not in ours)
            if now:
                self._execute(now[0])
            else:
                self.chain.execute("0x" + "77" * 32, self.nonce(), final=True)
        raise AssertionError("proposals are left")

    # what is looked at

    def nonce(self) -> int:
        safe = self.chain.safe(SAFE, self.chain.view().head)
        assert safe is not None
        return safe.nonce

    def pending(self) -> list[QueuedTransaction]:
        return [row for row in self.queue.rows.values() if not row.is_executed and row.nonce >= self.nonce()]

    def proposals(self) -> list[Proposal]:
        by_age = sorted(each.id for each in every_proposal(self.database))
        return [snapshot(self.database, proposal_id) for proposal_id in by_age]

    def live_nonces(self) -> list[int]:
        """Nonces at which live proposals of ours stand in the queue."""
        queued = {row.safe_tx_hash for row in self.pending()}
        live = [each.transaction for each in self.proposals() if each.state in LIVE_PROPOSAL and each.transaction]
        return sorted(one.nonce for one in live if one.safe_tx_hash in queued)

    def untold_holes(self) -> set[int]:
        """Nonces below ours at which nothing is queued, and of which nobody was told."""
        ours = self.live_nonces()
        known = {row.nonce for row in self.pending()}
        holes = set(range(self.nonce(), max(ours, default=0))) - known
        told = " ".join(
            alert.message for each in self.proposals() for alert in each.alerts if alert.code is AlertCode.NONCE_MISSING
        )
        return {hole for hole in holes if f"at nonce {hole}:" not in told}

    def _picture(self) -> list[Any]:
        return [sorted(self.queue.rows), *((each.state, each.transaction, each.alerts) for each in self.proposals())]

    # how

    def _serve(self, proposal_id: str) -> None:
        with self.database.transaction() as session:
            due = {"due_at": rows.func.now(), "lease_until": None}
            session.execute(update(tables.Proposal).where(tables.Proposal.id == proposal_id).values(**due))
        try:
            serve.serve_proposal(self.parts, proposal_id)
        except LeaseLost:
            return

    def _execute(self, row: QueuedTransaction) -> None:
        of = [
            each for each in self.proposals() if each.transaction and each.transaction.safe_tx_hash == row.safe_tx_hash
        ]
        logs = [(FactKind.HASH_ADDED, each.compose_hash) for each in of]
        execution = self.chain.execute(row.safe_tx_hash, row.nonce, *logs, final=True)
        self.queue.execute(row.safe_tx_hash, execution.transaction_hash)
        for each in of:
            self._register(each)

    def _register(self, each: Proposal) -> None:
        for request_id in each.members:
            move(self.database, request_id, State.PROPOSED, State.EXECUTED, EVIDENCE)
            move(self.database, request_id, State.EXECUTED, State.REGISTERED, EVIDENCE)

    def _move(self, each: Proposal, state: State) -> None:
        for request_id in each.members:
            move(self.database, request_id, State.PROPOSED, state)


def left_in_queue(life: QueueLife) -> list[Proposal]:
    """Ended proposals whose transaction still waits in the queue without a rejection beside it."""
    pending = life.pending()
    found = []
    with life.database.transaction() as session:
        for each in life.proposals():
            if each.state in LIVE_PROPOSAL:
                continue
            query = select(tables.SafeTransaction).where(tables.SafeTransaction.proposal_id == each.id)
            hashes = {
                one.safe_tx_hash
                for one in session.scalars(query)
                if one.kind == "approval" and one.state != SafeTransactionState.REPLACED
            }
            mine = [row for row in pending if row.safe_tx_hash in hashes]
            rejected = [row for row in pending if row.to == SAFE and row.nonce in {one.nonce for one in mine}]
            if mine and not rejected:
                found.append(each)
    return found
