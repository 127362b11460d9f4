"""Proposals: joined under their row lock, served under a lease, their nonces claimed per Safe."""

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import case, exists, func, select, update
from sqlalchemy.orm import Session

from service.domain import calls
from service.domain.alerts import kept
from service.domain.approver import Approver
from service.domain.errors import LeaseLost
from service.domain.outcomes import Facts, News, ProposalOutcome
from service.domain.prepares import Hearing
from service.domain.reasons import Reason
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
from service.domain.workspaces import safe_subject
from service.store import inbound, membership, nonces, snapshots, standing, transitions
from service.store.database import Database
from service.store.leases import Lease, at_once, due_again, given_back, held
from service.store.locks import lock_name
from service.store.tables import ChangeRequest, Proposal, SafeTransaction

_LIVE = [state.value for state in LIVE_PROPOSAL]
_DESERTED = frozenset({ProposalState.WITHDRAWING, ProposalState.WITHDRAWN})
_LIVE_TRANSACTION = [state.value for state in LIVE_SAFE_TRANSACTION]


class StoredRequestIntents:
    """``service.ports.RequestIntents`` for one leased change request."""

    def __init__(self, database: Database, lease: Lease) -> None:
        """Take the lease under which everything is written."""
        self._database = database
        self._lease = lease

    def record(self, facts: Facts, *, commits: bool = False) -> None:
        """See the port."""
        transitions.record(self._database, self._lease, facts, commits=commits)

    def publish(self, news: News, now: datetime) -> None:
        """See the port."""
        transitions.publish(self._database, self._lease, news, now)

    def heard(self) -> Hearing:
        """See the port."""
        return inbound.hearing(self._database, self._lease)

    def join_proposal(
        self, devices: tuple[str, ...], safe: str | None, approver: Approver | None = None
    ) -> ProposalSnapshot:
        """See the port. A proposal that is being withdrawn is returned without joining it: wait until it ended."""
        with self._database.transaction() as session:
            request = self._request(session)
            # One join of a hash at a time: the second finds the first one's row.
            lock_name(session, f"proposal:{request.workspace_id}:{request.chain_id}:{request.compose_hash}")
            before = membership.lock(session, request.proposal_id)
            row = _live_proposal(session, request, devices) or _new_proposal(
                self._database, session, request, devices, safe
            )
            if approver is not None:
                row.approver = dict(approver.as_json())
            if ProposalState(row.state) in JOINABLE_PROPOSAL and request.proposal_id != row.id:
                joining = self._request(session, lock=True)
                joining.proposal_id, joining.alerts_seen = row.id, 0
                session.flush()
                if before is not None:
                    membership.leave(session, before)
                    session.flush()
            joined = snapshots.proposal(session, row.id)
        if safe is not None and approver is not None:
            # Apart from the join, which holds rows that those who wait may want to lock in another order.
            standing.found_well(self._database, joined.workspace_id, safe_subject(joined.chain_id, safe))
        return joined

    def _request(self, session: Session, *, lock: bool = False) -> ChangeRequest:
        statement = select(ChangeRequest).where(held(self._lease))
        if lock:
            statement = statement.with_for_update(key_share=True)
        row = session.scalars(statement).one_or_none()
        if row is None:
            raise LeaseLost("another worker holds this change request")
        return row


def _live_proposal(session: Session, request: ChangeRequest, devices: tuple[str, ...]) -> Proposal | None:
    identity = (
        Proposal.workspace_id == request.workspace_id,
        Proposal.chain_id == request.chain_id,
        Proposal.app_contract == request.app_contract,
        Proposal.compose_hash == request.compose_hash,
        Proposal.devices == sorted(devices),
        Proposal.state.in_(_LIVE),
    )
    return session.scalars(select(Proposal).where(*identity).with_for_update(key_share=True)).one_or_none()


def _new_proposal(
    database: Database, session: Session, request: ChangeRequest, devices: tuple[str, ...], safe: str | None
) -> Proposal:
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
        due_at=None if safe is None else func.clock_timestamp(),
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

    def claim_nonce(
        self, chain_nonce: int, occupied: Collection[int] = (), scan_from: int | None = None
    ) -> SafeTransactionSnapshot:
        """See the port. The claim is per Safe, whatever the workspace.

        Raises:
            LeaseLost: another worker took over, or nobody wants the approval any more.
        """
        with self._database.transaction() as session:
            row = locked(session, self._lease)
            wanted = ProposalState(row.state) in JOINABLE_PROPOSAL
            if wanted:
                nonce = nonces.take_free(session, row, chain_nonce, occupied)
                call = calls.approval_call(row.app_contract, row.compose_hash, tuple(row.devices))
                return self._intend(session, row, SafeTransactionKind.APPROVAL, call, nonce, scan_from)
            _give_back(session, self._lease)
        raise LeaseLost("nobody waits for this proposal any more")

    def knows(self, safe_tx_hash: str) -> bool:
        """See the port."""
        with self._database.reads() as session:
            return bool(session.scalar(select(exists().where(SafeTransaction.safe_tx_hash == safe_tx_hash))))

    def intend_rejection(self, nonce: int) -> SafeTransactionSnapshot:
        """See the port. A rejection at that nonce that is stored already is the answer again.

        Raises:
            LeaseLost: another worker took over, or there is nothing to be withdrawn any more.
        """
        with self._database.transaction() as session:
            row = locked(session, self._lease)
            if row.state == ProposalState.WITHDRAWING:
                return self._rejection(session, row, nonce)
            _give_back(session, self._lease)
        raise LeaseLost("this proposal is not withdrawn any more")

    def _rejection(self, session: Session, row: Proposal, nonce: int) -> SafeTransactionSnapshot:
        known = session.scalars(
            select(SafeTransaction).where(
                SafeTransaction.proposal_id == row.id,
                SafeTransaction.kind == SafeTransactionKind.REJECTION.value,
                SafeTransaction.nonce == nonce,
                SafeTransaction.state.in_(_LIVE_TRANSACTION),
            )
        ).first()
        if known is not None:
            return snapshots.safe_transaction(known)
        call = calls.rejection_call(_safe_of(row))
        return self._intend(session, row, SafeTransactionKind.REJECTION, call, nonce)

    def _intend(
        self,
        session: Session,
        row: Proposal,
        kind: SafeTransactionKind,
        call: calls.SafeCall,
        nonce: int,
        scan_from: int | None = None,
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
            signature_kinds={},
            contract_signatures=[],
            scan_from=scan_from,
        )
        session.add(transaction)
        session.flush()
        return snapshots.safe_transaction(transaction)


def locked(session: Session, lease: Lease) -> Proposal:
    """A leased proposal, locked until the transaction ends.

    Raises:
        LeaseLost: another worker took over.
    """
    row = session.scalars(select(Proposal).where(held(lease)).with_for_update(key_share=True)).one_or_none()
    if row is None:
        raise LeaseLost("another worker holds this proposal")
    return row


def count_open(database: Database) -> int:
    """How many live proposals go through a Safe, on whatever chain: they share one quota."""
    live = (Proposal.safe.is_not(None), Proposal.state.in_(_LIVE))
    with database.transaction() as session:
        return session.scalar(select(func.count()).select_from(Proposal).where(*live)) or 0


def apply(database: Database, lease: Lease, before: ProposalSnapshot, outcome: ProposalOutcome) -> None:
    """Turn a proposal step's outcome into one transaction, and ring for the members if they have news.

    What the step saw of its transactions is stored in any case. Its decision is not, when the proposal changed
    meanwhile (the last member left, or a new one came to a proposal found deserted): it is looked at again at once.

    Raises:
        LeaseLost: another worker took over; nothing was written.
    """
    with database.transaction() as session:
        row = locked(session, lease)
        _write_transactions(session, before, outcome)
        stands = row.state == before.state.value and not (
            outcome.state in _DESERTED and before.state in JOINABLE_PROPOSAL and membership.has_members(session, row.id)
        )
        if stands:
            session.execute(update(Proposal).where(held(lease)).values(**_decided(lease, row, outcome)))
        else:
            _give_back(session, lease)
        if _has_news(before, outcome, stands=stands):
            membership.ring_members(session, row.id)
    _tell_standing(database, before, outcome)


def _tell_standing(database: Database, proposal: ProposalSnapshot, outcome: ProposalOutcome) -> None:
    if outcome.is_delegate is None or proposal.safe is None:
        return
    subject = safe_subject(proposal.chain_id, proposal.safe)
    if outcome.is_delegate:
        standing.found_well(database, proposal.workspace_id, subject)
        return
    detail = f"the service's key is no delegate of an owner of {proposal.safe} any more"
    standing.note(database, proposal.workspace_id, subject, Reason.PROPOSER_NOT_DELEGATE, detail)


def _decided(lease: Lease, row: Proposal, outcome: ProposalOutcome) -> dict[str, Any]:
    attempts = {None: row.attempts, False: 0, True: row.attempts + 1}[outcome.failed_attempt]
    wait = outcome.wait_seconds
    alerts = kept(snapshots.alerts(row), outcome.alerts)
    facts = {
        "safe_seen": None if outcome.safe_seen is None else asdict(outcome.safe_seen),
        "news_at": outcome.news_at,
        "queue_due_at": outcome.queue_due_at,
        "delegate_checked_at": outcome.delegate_checked_at,
    }
    return {
        "state": outcome.state.value,
        "detail": outcome.detail,
        "fault": outcome.fault,
        "attempts": attempts,
        "alerts": [{"code": one.code.value, "message": one.message} for one in alerts],
        **{column: value for column, value in facts.items() if value is not None},
        **given_back(None if wait is None else due_again(lease, wait)),
    }


def _give_back(session: Session, lease: Lease) -> None:
    """Look again at once, unless it ended."""
    session.execute(update(Proposal).where(held(lease)).values(**given_back(at_once(lease))))


def _write_transactions(session: Session, before: ProposalSnapshot, outcome: ProposalOutcome) -> None:
    newest = snapshots.proposal(session, before.id)
    signatures, contracts = outcome.signatures, outcome.contract_signatures
    facts: dict[str, Any] = {
        "transaction_hash": outcome.transaction_hash,
        "confirmations": None if signatures is None else list(signatures),
        "signature_kinds": None if signatures is None else {owner: kind.value for owner, kind in signatures.items()},
        "contract_signatures": None if contracts is None else list(contracts),
        "threshold": outcome.threshold,
        "scan_from": outcome.scan_from,
    }
    _write_transaction(session, newest.transaction, outcome.transaction_state, facts)
    _write_transaction(session, newest.rejection, outcome.rejection_state, {})


def _write_transaction(
    session: Session,
    transaction: SafeTransactionSnapshot | None,
    state: SafeTransactionState | None,
    facts: dict[str, Any],
) -> None:
    values = {column: value for column, value in facts.items() if value is not None}
    if state is not None:
        # What is over stays over: its nonce may be another one's by now.
        live = SafeTransaction.state.in_(_LIVE_TRANSACTION)
        values["state"] = case((live, state.value), else_=SafeTransaction.state)
    if transaction is not None and values:
        session.execute(update(SafeTransaction).where(SafeTransaction.id == transaction.id).values(**values))


def _has_news(before: ProposalSnapshot, outcome: ProposalOutcome, *, stands: bool) -> bool:
    if (stands and (outcome.state is not before.state or outcome.alerts)) or outcome.transaction_hash is not None:
        return True
    if before.state is ProposalState.POSTING and outcome.fault is not before.fault:
        return True  # its members show what keeps it from being posted
    known = before.transaction
    seen = (set(known.confirmations), known.threshold) if known else (set(), None)
    confirmations = seen[0] if outcome.signatures is None else set(outcome.signatures)
    threshold = seen[1] if outcome.threshold is None else outcome.threshold
    return (confirmations, threshold) != seen


def _safe_of(row: Proposal) -> str:
    if row.safe is None:
        raise ValueError(f"proposal {row.id} has no Safe")
    return row.safe
