"""Change requests that join a proposal, move on and leave it."""

from sqlalchemy import select

from service.domain.outcomes import Advance, Facts
from service.domain.reasons import Reason
from service.domain.snapshots import Proposal as Snapshot
from service.domain.states import State
from service.store import snapshots, transitions
from service.store.database import Database
from service.store.proposals import StoredRequestIntents
from service.store.tables import ChangeRequest, Proposal
from tests.support import rows

EVIDENCE = Facts(transaction_hash="0x" + "aa" * 32, evidence_block_hash="0x" + "b1" * 32, evidence_block_number=100)


def join(database: Database, request_id: str, devices: tuple[str, ...] = (), safe: str | None = rows.SAFE) -> Snapshot:
    """Let a prepared request join, and give its lease back."""
    lease = rows.lease(database, ChangeRequest, request_id)
    joined = StoredRequestIntents(database, lease).join_proposal(devices, safe)
    rows.shift(database, ChangeRequest, request_id, lease_until=None)
    return joined


def member(database: Database, workspace: str, proposal_id: str, state: State = State.PROPOSED) -> str:
    """A change request that joined a proposal; its id."""
    return rows.change_request(database, workspace, state, proposal_id=proposal_id)


def move(database: Database, request_id: str, source: State, target: State, facts: Facts | None = None) -> None:
    """Take a change request along one edge."""
    reason = Reason.INTERNAL_ERROR if target is State.FAILED else None
    outcome = Advance(target, facts or Facts(), reason=reason)
    transitions.apply(database, rows.lease(database, ChangeRequest, request_id), source, outcome, rows.NOW)


def snapshot(database: Database, proposal_id: str) -> Snapshot:
    """A proposal as its step sees it."""
    with database.transaction() as session:
        return snapshots.proposal(session, proposal_id)


def every_proposal(database: Database) -> list[Proposal]:
    """All proposals."""
    with database.transaction() as session:
        return list(session.scalars(select(Proposal)))
