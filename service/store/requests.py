"""Change requests as the API stores and reads them. It only writes rows; the sweep finds them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import func, literal, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.domain.outcomes import Notice
from service.domain.snapshots import Intake, SafeTransactionKind
from service.domain.states import TERMINAL, State
from service.store import events, tokens
from service.store.database import Database
from service.store.tables import ChangeRequest, CommitToken, Event, Proposal, SafeTransaction, Workspace

_SECOND: Final = text("interval '1 second'")


class TokenAlreadySubmitted(Exception):
    """The commit token already belongs to a change request.

    Attributes:
        holder: its id, if it is one of the same workspace.
    """

    def __init__(self, holder: str | None) -> None:
        super().__init__("the commit token was submitted before")
        self.holder = holder


class CommitStarted(Exception):
    """Too late to cancel: a commit attempt is stored."""


class AlreadyEnded(Exception):
    """Too late to cancel: the change request is in a terminal state."""


class NotAllowedHere(Exception):
    """The workspace does not permit what was asked."""


@dataclass(frozen=True, slots=True)
class PreparedUpdate:
    """A prepared update as somebody else got it from Phala Cloud. Hashes bytes32, the address checksummed."""

    chain_id: int
    app_contract: str
    device_id: str
    compose_hash: str
    commit_token: SecretStr


@dataclass(frozen=True, slots=True)
class Submission:
    """What is asked for."""

    workspace_id: str
    cvm_id: str
    patch: dict[str, Any] | None
    prepared: PreparedUpdate | None
    title: str | None
    allow_without_approval: bool
    warnings: Sequence[str]
    deadline_seconds: int | None


@dataclass(frozen=True, slots=True)
class Approval:
    """A proposal and its Safe transactions, oldest first."""

    proposal: Proposal
    transactions: Sequence[SafeTransaction]

    @property
    def newest(self) -> SafeTransaction | None:
        """The approval that owners sign now."""
        approvals = [row for row in self.transactions if row.kind == SafeTransactionKind.APPROVAL]
        return approvals[-1] if approvals else None


def submit(database: Database, submission: Submission, now: datetime, actor: Actor) -> ChangeRequest:
    """Store a change request in ``received``, with its first event.

    Raises:
        TokenAlreadySubmitted: see there.
        NotAllowedHere: ``allow_without_approval`` in a workspace that does not permit it.
    """
    request_id = database.new_id("cr")
    try:
        with database.transaction() as session:
            if submission.allow_without_approval:
                _check_permitted(session, submission.workspace_id)
            row = ChangeRequest(**_values(database, request_id, submission, now))
            session.add(row)
            if submission.prepared is not None:
                session.flush()
                _hold(database, session, row, submission.prepared)
            # Both rows are written by the flush of this, the request with the number of its first event.
            events.append(database, session, row, name=State.RECEIVED.value, actor=actor, now=now)
            session.refresh(row)  # what the database filled in
    except IntegrityError as error:
        if "commit_token_fingerprint" in str(error.orig):
            with database.transaction() as session:
                holder = _holder_of(database, session, submission)
            raise TokenAlreadySubmitted(holder) from error
        raise
    return row


def _check_permitted(session: Session, workspace_id: str) -> None:
    if not session.scalar(select(Workspace.allow_without_approval).where(Workspace.id == workspace_id)):
        raise NotAllowedHere


def _hold(database: Database, session: Session, row: ChangeRequest, prepared: PreparedUpdate) -> None:
    if not tokens.hold(session, row.id, database.sealer.fingerprint(prepared.commit_token)):
        raise TokenAlreadySubmitted(holder_of_token(database, session, row.workspace_id, prepared.commit_token))


def _holder_of(database: Database, session: Session, submission: Submission) -> str | None:
    if submission.prepared is None:
        return None
    return holder_of_token(database, session, submission.workspace_id, submission.prepared.commit_token)


def holder_of_token(database: Database, session: Session, workspace_id: str, token: SecretStr) -> str | None:
    """Id of the change request of a workspace that holds or held a token."""
    return session.scalar(
        select(ChangeRequest.id)
        .join(CommitToken, CommitToken.change_request_id == ChangeRequest.id)
        .where(
            CommitToken.fingerprint == database.sealer.fingerprint(token), ChangeRequest.workspace_id == workspace_id
        )
    )


def _values(database: Database, request_id: str, submission: Submission, now: datetime) -> dict[str, Any]:
    default = select(Workspace.deadline_seconds).where(Workspace.id == submission.workspace_id).scalar_subquery()
    seconds = default if submission.deadline_seconds is None else literal(submission.deadline_seconds)
    values: dict[str, Any] = {
        "id": request_id,
        "workspace_id": submission.workspace_id,
        "state": State.RECEIVED.value,
        "state_entered_at": now,
        "intake": Intake.PATCH.value if submission.prepared is None else Intake.PREPARED.value,
        "cvm_id": submission.cvm_id,
        "title": submission.title,
        "patch": submission.patch,
        "allow_without_approval": submission.allow_without_approval,
        "warnings": list(submission.warnings),
        "deadline_at": literal(now) + seconds * _SECOND,
        "due_at": func.now(),
        "created_at": now,
        "updated_at": now,
        "last_event_seq": 0,
        "last_chained_seq": 0,
    }
    prepared = submission.prepared
    if prepared is not None:
        values |= {
            "chain_id": prepared.chain_id,
            "app_contract": prepared.app_contract,
            "device_id": prepared.device_id,
            "compose_hash": prepared.compose_hash,
            **tokens.columns(database, request_id, prepared.commit_token),
        }
    return values


def get(session: Session, workspace_id: str, request_id: str) -> ChangeRequest | None:
    """A change request of the workspace."""
    return session.scalars(
        select(ChangeRequest).where(ChangeRequest.id == request_id, ChangeRequest.workspace_id == workspace_id)
    ).one_or_none()


def approvals_of(session: Session, rows: Sequence[ChangeRequest]) -> Mapping[str, Approval]:
    """The approvals that change requests wait or waited for, by the id of the request."""
    wanted = {row.proposal_id for row in rows if row.proposal_id is not None}
    if not wanted:
        return {}
    transactions: dict[str, list[SafeTransaction]] = {proposal_id: [] for proposal_id in wanted}
    statement = (
        select(SafeTransaction).where(SafeTransaction.proposal_id.in_(wanted)).order_by(SafeTransaction.position)
    )
    for transaction in session.scalars(statement):
        transactions[transaction.proposal_id].append(transaction)
    proposals = session.scalars(select(Proposal).where(Proposal.id.in_(wanted)))
    approvals = {proposal.id: Approval(proposal, transactions[proposal.id]) for proposal in proposals}
    return {row.id: approvals[row.proposal_id] for row in rows if row.proposal_id is not None}


@dataclass(frozen=True, slots=True)
class Filters:
    """Which change requests to list; ``None`` means any."""

    state: State | None = None
    cvm_id: str | None = None
    compose_hash: str | None = None
    live: bool | None = None


def listing(
    session: Session, workspace_id: str, filters: Filters, *, before: str | None, limit: int
) -> Sequence[ChangeRequest]:
    """Newest first, those older than the id ``before``."""
    statement = select(ChangeRequest).where(ChangeRequest.workspace_id == workspace_id)
    if before is not None:
        statement = statement.where(ChangeRequest.id < before)
    if filters.state is not None:
        statement = statement.where(ChangeRequest.state == filters.state.value)
    if filters.cvm_id is not None:
        statement = statement.where(
            (ChangeRequest.cvm_id == filters.cvm_id) | (ChangeRequest.vm_uuid == filters.cvm_id)
        )
    if filters.compose_hash is not None:
        statement = statement.where(ChangeRequest.compose_hash == filters.compose_hash)
    if filters.live is not None:
        ended = ChangeRequest.state.in_([state.value for state in TERMINAL])
        statement = statement.where(~ended if filters.live else ended)
    return session.scalars(statement.order_by(ChangeRequest.id.desc()).limit(limit)).all()


def events_of(session: Session, row: ChangeRequest, *, after: int, limit: int) -> Sequence[Event]:
    """Events of a change request with a sequence number above ``after``, in order."""
    return session.scalars(
        select(Event).where(Event.change_request_id == row.id, Event.seq > after).order_by(Event.seq).limit(limit)
    ).all()


def wish_cancel(
    database: Database, workspace_id: str, request_id: str, now: datetime, actor: Actor
) -> ChangeRequest | None:
    """Store the wish to cancel; the lease holder turns it into a state. ``None`` if there is no such request.

    Raises:
        CommitStarted: a commit attempt is stored.
        AlreadyEnded: in a terminal state other than ``cancelled``.
    """
    with database.transaction() as session:
        row = session.scalars(
            select(ChangeRequest)
            .where(ChangeRequest.id == request_id, ChangeRequest.workspace_id == workspace_id)
            .with_for_update()
        ).one_or_none()
        if row is None or row.state == State.CANCELLED:
            return row
        if State(row.state) in TERMINAL:
            raise AlreadyEnded
        if row.commit_attempted_at is not None or row.state == State.COMMITTED:
            raise CommitStarted
        if row.cancel_requested_at is None:
            wish = (
                update(ChangeRequest)
                .where(ChangeRequest.id == row.id)
                .values(cancel_requested_at=now, due_at=func.clock_timestamp(), rung_at=None, updated_at=now)
            )
            session.execute(wish)
            events.append(database, session, row, name=Notice.CANCEL_REQUESTED.value, actor=actor, now=now)
            session.refresh(row)
        return row
