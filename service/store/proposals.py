"""Proposals: joined under their row lock, served under a lease, their nonces claimed per Safe."""

from typing import Any

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from service.domain import calls
from service.domain.errors import LeaseLost
from service.domain.outcomes import Facts, ProposalOutcome
from service.domain.snapshots import (
    JOINABLE_PROPOSAL,
    LIVE_PROPOSAL,
    LIVE_SAFE_TRANSACTION,
    ProposalState,
    SafeTransactionKind,
    SafeTransactionState,
)
from service.domain.snapshots import Proposal as ProposalSnapshot
from service.domain.snapshots import SafeTransaction as SafeTransactionSnapshot
from service.store import snapshots, transitions
from service.store.database import Database
from service.store.leases import Lease, due_again, held
from service.store.tables import ChangeRequest, Proposal, SafeTransaction

_ENDED = frozenset(ProposalState) - LIVE_PROPOSAL


class StoredRequestIntents:
    """``service.ports.RequestIntents`` for one leased change request."""

    def __init__(self, database: Database, lease: Lease) -> None:
        """Take the lease under which everything is written."""
        self._database = database
        self._lease = lease

    def record(self, facts: Facts) -> None:
        """See the port."""
        transitions.record(self._database, self._lease, facts)

    def join_proposal(self, devices: tuple[str, ...], safe: str | None) -> ProposalSnapshot:
        """See the port. A proposal that is being withdrawn is returned without joining it: wait until it ended."""
        with self._database.transaction() as session:
            request = session.scalars(select(ChangeRequest).where(held(self._lease)).with_for_update()).one_or_none()
            if request is None:
                raise LeaseLost("another worker holds this change request")
            row = _live_proposal(session, request, devices) or _new_proposal(
                self._database, session, request, devices, safe
            )
            if ProposalState(row.state) in JOINABLE_PROPOSAL:
                request.proposal_id = row.id
            session.flush()
            return snapshots.proposal(session, row.id)


def _live_proposal(session: Session, request: ChangeRequest, devices: tuple[str, ...]) -> Proposal | None:
    identity = (
        Proposal.workspace_id == request.workspace_id,
        Proposal.chain_id == request.chain_id,
        Proposal.app_contract == request.app_contract,
        Proposal.compose_hash == request.compose_hash,
        Proposal.devices == sorted(devices),
        Proposal.state.in_([state.value for state in LIVE_PROPOSAL]),
    )
    return session.scalars(select(Proposal).where(*identity).with_for_update()).one_or_none()


def _new_proposal(
    database: Database, session: Session, request: ChangeRequest, devices: tuple[str, ...], safe: str | None
) -> Proposal:
    # Two joins at once: the second waits here, then finds the first one's row.
    _lock(session, f"proposal:{request.workspace_id}:{request.chain_id}:{request.app_contract}:{request.compose_hash}")
    found = _live_proposal(session, request, devices)
    if found is not None:
        return found
    state = ProposalState.EXTERNAL if safe is None else ProposalState.POSTING
    row = Proposal(
        id=database.new_id("prop"),
        workspace_id=request.workspace_id,
        state=state.value,
        chain_id=request.chain_id,
        app_contract=request.app_contract,
        compose_hash=request.compose_hash,
        devices=sorted(devices),
        safe=safe,
        due_at=None if safe is None else func.now(),
    )
    session.add(row)
    session.flush()
    return row


class StoredProposalIntents:
    """``service.ports.ProposalIntents`` for one leased proposal."""

    def __init__(self, database: Database, lease: Lease) -> None:
        """Take the lease under which everything is written."""
        self._database = database
        self._lease = lease

    def claim_nonce(self, next_nonce: int) -> SafeTransactionSnapshot:
        """See the port. The claim is per Safe, whatever the workspace."""
        with self._database.transaction() as session:
            row = self._proposal(session)
            _lock(session, f"nonce:{row.chain_id}:{row.safe}")
            taken = set(
                session.scalars(
                    select(SafeTransaction.nonce).where(
                        SafeTransaction.chain_id == row.chain_id,
                        SafeTransaction.safe == row.safe,
                        SafeTransaction.nonce >= next_nonce,
                        SafeTransaction.kind == SafeTransactionKind.APPROVAL,
                        SafeTransaction.state.in_([state.value for state in LIVE_SAFE_TRANSACTION]),
                    )
                )
            )
            nonce = next_nonce
            while nonce in taken:
                nonce += 1
            call = calls.approval_call(row.app_contract, row.compose_hash, tuple(row.devices))
            return self._intend(session, row, SafeTransactionKind.APPROVAL, call, nonce)

    def intend_rejection(self, nonce: int) -> SafeTransactionSnapshot:
        """See the port."""
        with self._database.transaction() as session:
            row = self._proposal(session)
            call = calls.rejection_call(_safe_of(row))
            return self._intend(session, row, SafeTransactionKind.REJECTION, call, nonce)

    def _proposal(self, session: Session) -> Proposal:
        row = session.scalars(select(Proposal).where(held(self._lease)).with_for_update()).one_or_none()
        if row is None:
            raise LeaseLost("another worker holds this proposal")
        return row

    def _intend(
        self, session: Session, row: Proposal, kind: SafeTransactionKind, call: calls.SafeCall, nonce: int
    ) -> SafeTransactionSnapshot:
        safe = _safe_of(row)
        transaction = SafeTransaction(
            id=self._database.new_id("stx"),
            proposal_id=row.id,
            kind=kind.value,
            state=SafeTransactionState.INTENDED.value,
            chain_id=row.chain_id,
            safe=safe,
            nonce=nonce,
            to=call.to,
            data=call.data,
            operation=call.operation,
            safe_tx_hash=calls.safe_tx_hash(row.chain_id, safe, call, nonce),
            confirmations=[],
        )
        session.add(transaction)
        session.flush()
        return snapshots.safe_transaction(transaction)


def apply(database: Database, lease: Lease, before: ProposalSnapshot, outcome: ProposalOutcome) -> None:
    """Turn a proposal step's outcome into one transaction, and ring for the members if they have news.

    Raises:
        LeaseLost: another worker took over, or the last member left meanwhile; nothing was written.
    """
    ended = outcome.state in _ENDED or outcome.wait_seconds is None
    values: dict[str, Any] = {
        "state": outcome.state.value,
        "detail": outcome.detail,
        "due_at": None if ended else due_again(lease, outcome.wait_seconds or 0),
        "lease_until": None,
        "attempts": Proposal.attempts + 1 if outcome.failed_attempt else 0,
    }
    with database.transaction() as session:
        statement = (
            update(Proposal).where(held(lease), Proposal.state == before.state.value).values(**values)
        ).returning(Proposal.id)
        if session.scalars(statement).one_or_none() is None:
            _give_back(session, lease)
            return
        _write_transactions(session, before, outcome)
        if _has_news(before, outcome):
            ring_members(session, before.id)


def _give_back(session: Session, lease: Lease) -> None:
    """The state changed during the lease (the last member left): look again at once."""
    session.execute(update(Proposal).where(held(lease)).values(lease_until=None, rung_at=None))


def _write_transactions(session: Session, before: ProposalSnapshot, outcome: ProposalOutcome) -> None:
    newest = snapshots.proposal(session, before.id)
    approval: dict[str, Any] = {}
    if outcome.transaction_state is not None:
        approval["state"] = outcome.transaction_state.value
    if outcome.transaction_hash is not None:
        approval["transaction_hash"] = outcome.transaction_hash
    if outcome.confirmations is not None:
        approval["confirmations"] = list(outcome.confirmations)
    if outcome.threshold is not None:
        approval["threshold"] = outcome.threshold
    if approval and newest.transaction is not None:
        session.execute(update(SafeTransaction).where(SafeTransaction.id == newest.transaction.id).values(**approval))
    if outcome.rejection_state is not None and newest.rejection is not None:
        session.execute(
            update(SafeTransaction)
            .where(SafeTransaction.id == newest.rejection.id)
            .values(state=outcome.rejection_state.value)
        )


def _has_news(before: ProposalSnapshot, outcome: ProposalOutcome) -> bool:
    if outcome.state is not before.state or outcome.transaction_hash is not None:
        return True
    seen = before.transaction.confirmations if before.transaction else ()
    return outcome.confirmations is not None and set(outcome.confirmations) != set(seen)


def ring_members(session: Session, proposal_id: str) -> None:
    """Make the live members of a proposal due now."""
    session.execute(
        update(ChangeRequest)
        .where(
            ChangeRequest.proposal_id == proposal_id,
            ChangeRequest.state.in_([state.value for state in transitions.MEMBER_STATES]),
        )
        .values(due_at=func.clock_timestamp(), rung_at=None)
    )


def _safe_of(row: Proposal) -> str:
    if row.safe is None:
        raise ValueError(f"proposal {row.id} has no Safe")
    return row.safe


def _lock(session: Session, name: str) -> None:
    """A lock on a name until the transaction ends."""
    session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
