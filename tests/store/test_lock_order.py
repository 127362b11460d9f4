"""Transactions that meet on the same rows wait for each other, never in a circle."""

import random
from collections.abc import Callable
from contextlib import suppress

import pytest
from sqlalchemy import select, text

from service.domain.chain import Block, ChainView, Cursor, Observation
from service.domain.errors import LeaseLost
from service.domain.outcomes import Advance, Facts, ProposalOutcome, Wait
from service.domain.reasons import Reason
from service.domain.signatures import SignatureKind
from service.domain.snapshots import ProposalState, SafeTransactionState
from service.domain.states import State
from service.store import leases, observations, proposals, snapshots, transitions
from service.store.database import Database
from service.store.leases import Lease
from service.store.proposals import StoredRequestIntents
from service.store.tables import ChainCursor, ChangeRequest, Proposal
from tests.support import rows
from tests.support.threads import holding, in_background, together, wait_until_blocked

CONFIRMED = {"0x" + "11" * 20: SignatureKind.EIP712}
LOCK_REQUEST = "SELECT id FROM change_requests WHERE id = :id FOR UPDATE"


def _ring_members(database: Database, lease: Lease, proposal_id: str) -> None:
    with database.transaction() as session:
        before = snapshots.proposal(session, proposal_id)
    proposals.apply(database, lease, before, ProposalOutcome(ProposalState.QUEUED, 0, signatures=CONFIRMED))


def test_a_member_leaves_while_the_proposal_rings_for_its_members(database: Database, workspace: str):
    """One holds a request and wants the proposal, the other the proposal and wants its requests."""
    proposal_id = rows.proposal(database, workspace)
    rows.approval(database, proposal_id)
    first, leaving = (rows.change_request(database, workspace, State.PROPOSED, proposal_id=proposal_id) for _ in "12")
    request_lease, proposal_lease = (
        rows.lease(database, ChangeRequest, leaving),
        rows.lease(database, Proposal, proposal_id),
    )
    leave = in_background(
        lambda: transitions.apply(
            database, request_lease, State.PROPOSED, Advance(State.CANCELLED, reason=Reason.CANCELLED_BY_USER), rows.NOW
        )
    )
    ring = in_background(lambda: _ring_members(database, proposal_lease, proposal_id))
    with holding(database, LOCK_REQUEST, id=first) as blocker, ring as rung:
        wait_until_blocked(database, 1)  # the ring holds the proposal and waits for its first member
        with leave as left:
            wait_until_blocked(database, 2)
            blocker.commit()
            rung.result()
            left.result()
    assert rows.read(database, ChangeRequest, leaving).state == "cancelled"
    with database.transaction() as session:
        assert snapshots.proposal(session, proposal_id).members == (first,)


def test_a_request_joins_while_the_proposal_rings_for_its_members(database: Database, workspace: str):
    proposal_id = rows.proposal(database, workspace)
    rows.approval(database, proposal_id)
    first = rows.change_request(database, workspace, State.PROPOSED, proposal_id=proposal_id)
    again = rows.change_request(database, workspace, State.PREPARED, proposal_id=proposal_id)
    request_lease, proposal_lease = (
        rows.lease(database, ChangeRequest, again),
        rows.lease(database, Proposal, proposal_id),
    )
    ring = in_background(lambda: _ring_members(database, proposal_lease, proposal_id))
    join = in_background(lambda: StoredRequestIntents(database, request_lease).join_proposal((), rows.SAFE))
    with holding(database, LOCK_REQUEST, id=first) as blocker, ring as rung:
        wait_until_blocked(database, 1)
        with join as joined:
            wait_until_blocked(database, 2)
            blocker.commit()
            rung.result()
            assert joined.result().members == tuple(sorted((first, again)))


def test_a_chain_and_a_proposal_ring_for_the_same_requests(database: Database, workspace: str):
    """The table holds them in another order than that of their ids, so that a plain scan would lock them crosswise."""
    observations.ensure_chains(database, [rows.CHAIN_ID])
    proposal_id = rows.proposal(database, workspace)
    members = [rows.change_request(database, workspace, State.PROPOSED, proposal_id=proposal_id) for _ in range(3)]
    with database.transaction() as session:
        for member in reversed(members):
            session.execute(text("UPDATE change_requests SET title = 'moved' WHERE id = :id"), {"id": member})
    with holding(database, LOCK_REQUEST, id=members[1]) as blocker:
        ringing = in_background(lambda: _ring(database, proposal_id))
        with ringing as rung:
            wait_until_blocked(database, 1)
            held = "SELECT id FROM change_requests WHERE id = :id FOR UPDATE SKIP LOCKED"
            with database.transaction() as session:
                free = [row_id for row_id in members if session.scalar(text(held), {"id": row_id})]
            blocker.commit()
            rung.result()
    assert free == members[2:], "those before the one it waits for are locked, those after it are not"


def _ring(database: Database, proposal_id: str) -> None:
    with database.transaction() as session:
        leases.ring(session, ChangeRequest, ChangeRequest.proposal_id == proposal_id)


class Bustle:
    """Workers that do whatever is possible: members join, register, leave; the chain and proposals ring for them."""

    HASHES = ("0x" + "01" * 32, "0x" + "02" * 32)
    EVIDENCE = Facts(evidence_block_hash="0x01", evidence_block_number=1)

    def __init__(self, database: Database, requests: list[str]) -> None:
        self.database = database
        self.requests = requests
        self.roll = random.Random(1)  # noqa: S311 - a mixture, no secret

    def serve_request(self) -> None:
        request_id = self.roll.choice(self.requests)
        lease = leases.acquire(self.database, ChangeRequest, request_id)
        if lease is None:
            return
        state = State(rows.read(self.database, ChangeRequest, request_id).state)
        transitions.apply(self.database, lease, state, self._decide(lease, state), rows.NOW)

    def _decide(self, lease: Lease, state: State) -> Advance | Wait:
        if state is State.PREPARED:
            # After a reorg it may need an approval that it did not need before.
            devices = self.roll.choice([(), (rows.DEVICE,)])
            joined = StoredRequestIntents(self.database, lease).join_proposal(devices, rows.SAFE)
            if joined.state is ProposalState.WITHDRAWING:
                return Wait(0, Reason.WAITING_FOR_PROPOSAL)
            return Advance(State.PROPOSED)
        if state is State.PROPOSED:
            return Advance(State.EXECUTED, self.EVIDENCE)
        if state is State.EXECUTED:
            return Advance(self.roll.choice([State.PREPARED, State.PREPARED, State.REGISTERED, State.CANCELLED]))
        return Wait(60, Reason.PHALA_BUSY)

    def serve_proposals(self) -> None:
        for proposal_id, _ in leases.ring_due(self.database, Proposal, 10):
            lease = leases.acquire(self.database, Proposal, proposal_id)
            if lease is None:
                continue
            with self.database.transaction() as session:
                before = snapshots.proposal(session, proposal_id)
            signed = {f"0x{self.roll.random()}": SignatureKind.EIP712}
            outcome = ProposalOutcome(ProposalState.QUEUED, 0, signatures=signed)
            if before.state is ProposalState.WITHDRAWING:
                deleted = SafeTransactionState.DELETED
                outcome = ProposalOutcome(ProposalState.WITHDRAWN, None, transaction_state=deleted)
            elif before.state is ProposalState.APPROVED:
                executed = SafeTransactionState.EXECUTED
                outcome = ProposalOutcome(ProposalState.APPROVED, None, transaction_state=executed)
            proposals.apply(self.database, lease, before, outcome)

    def observe(self) -> None:
        lease = leases.acquire(self.database, ChainCursor, rows.CHAIN_ID)
        if lease is not None:
            block = Block(self.roll.randrange(1000), "0x01")
            facts = (rows.fact(block.number, value=self.roll.choice(self.HASHES)),)
            seen = Observation(ChainView(block, block), Cursor(block), facts, (), 0)
            observations.apply(self.database, lease, seen, interval_seconds=0, now=rows.NOW)

    def repeat(self, call: Callable[[], None]) -> None:
        for _ in range(20):
            with suppress(LeaseLost):
                call()


@pytest.mark.fault(
    "database",
    "Everybody writes to the same rows at once",
    "locks are taken in one order: they wait, nobody is in a deadlock",
    "as long as the transactions before them",
)
def test_everything_at_once_ends_without_a_deadlock(database: Database, workspace: str):
    observations.ensure_chains(database, [rows.CHAIN_ID])
    for nonce, compose_hash in enumerate(Bustle.HASHES):
        rows.approval(database, rows.proposal(database, workspace, compose_hash=compose_hash), nonce)
    hashes = [*Bustle.HASHES] * 4
    requests = [rows.change_request(database, workspace, State.PREPARED, compose_hash=each) for each in hashes]
    bustle = Bustle(database, requests)
    calls = [bustle.serve_request] * 4 + [bustle.serve_proposals] * 2 + [bustle.observe] * 2
    together([lambda call=call: bustle.repeat(call) for call in calls])

    for request_id in requests:
        row, events = rows.read(database, ChangeRequest, request_id), rows.events(database, request_id)
        assert [event.seq for event in events] == list(range(1, row.last_event_seq + 1))
        assert [event.state for event in events][-1:] in ([row.state], [])
    with database.transaction() as session:
        joined = set(session.scalars(select(ChangeRequest.proposal_id)))
        for proposal in session.scalars(select(Proposal).where(Proposal.state.in_(["posting", "queued"]))):
            members = snapshots.proposal(session, proposal.id).members
            assert members or proposal.id not in joined, "a proposal that everybody left is withdrawn"
