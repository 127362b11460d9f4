"""Change requests as the API stores and reads them. It only writes rows; the sweep finds them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, cast

from pydantic import SecretStr
from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    ScalarSelect,
    Table,
    Text,
    bindparam,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from service.domain.actors import Actor
from service.domain.conflicts import OnConflict
from service.domain.gates import CommitPolicy
from service.domain.snapshots import Intake, SafeTransactionKind
from service.domain.states import HOLDS_CVM, State
from service.store import events, superseding, tokens
from service.store.columns import plain
from service.store.database import Database, Prepared, parameters_for, perform, unattached
from service.store.tables import ChangeRequest, CommitToken, Proposal, SafeTransaction, Workspace

_SECOND: Final = text("interval '1 second'")
_HOLDS_CVM: Final = sorted(state.value for state in HOLDS_CVM)
_REQUESTS: Final = cast("Table", ChangeRequest.__table__)
_OF_PREPARED: Final = (
    "chain_id",
    "app_contract",
    "device_id",
    "compose_hash",
    "commit_token_sealed",
    "commit_token_fingerprint",
)
_OF_ALL: Final = (
    "id",
    "workspace_id",
    "state",
    "state_entered_at",
    "intake",
    "cvm_id",
    "title",
    "submitted_by",
    "api_request_id",
    "traceparent",
    "change_reason",
    "change_links",
    "change_metadata",
    "on_conflict",
    "commit_policy",
    "not_before",
    "retry_of",
    "patch",
    "allow_without_approval",
    "warnings",
    "created_at",
    "updated_at",
)


class TokenAlreadySubmitted(Exception):
    """The commit token already belongs to a change request.

    Attributes:
        holder: its id, if it is one of the same workspace.
    """

    def __init__(self, holder: str | None) -> None:
        super().__init__("the commit token was submitted before")
        self.holder = holder


class NotAllowedHere(Exception):
    """The workspace does not permit what was asked.

    Attributes:
        member: the member of ``Submission`` that it does not permit.
    """

    def __init__(self, member: str) -> None:
        super().__init__(f"the workspace does not permit {member}")
        self.member = member


class CvmHeld(Exception):
    """Another live change request of the CVM is in the way.

    Attributes:
        holder: its id.
        commits: its commit has started, so that nothing takes its place any more.
    """

    def __init__(self, holder: str, *, commits: bool = False) -> None:
        super().__init__(f"change request {holder} of this CVM is live")
        self.holder = holder
        self.commits = commits


class NeverInTime(Exception):
    """The commit is to wait until after the deadline."""


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
    """What is asked for.

    Attributes:
        vm_uuid: of the CVM, if it was told.
        commit_policy: ``None`` follows the workspace.
        may_loosen: whether ``commit_policy`` may be less strict than the workspace's.
        retry_of: the change request that this one tries again.
        api_request_id: of the request to the API that asks for it; log lines of its steps carry it.
        traceparent: the W3C text of that request's span; the spans of its steps link to it.
    """

    workspace_id: str
    cvm_id: str
    patch: dict[str, Any] | None
    prepared: PreparedUpdate | None
    title: str | None
    allow_without_approval: bool
    warnings: Sequence[str]
    deadline_seconds: int | None
    vm_uuid: str | None = None
    change_reason: str | None = None
    change_links: Sequence[str] = ()
    change_metadata: Mapping[str, str] = field(default_factory=dict)
    on_conflict: OnConflict = OnConflict.REFUSE
    commit_policy: CommitPolicy | None = None
    may_loosen: bool = False
    not_before: datetime | None = None
    retry_of: str | None = None
    submitted_by: str | None = None
    api_request_id: str | None = None
    traceparent: str | None = None


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


def _met() -> ColumnElement[str]:
    """Id of a live change request of the same CVM, as far as that is known without asking Phala Cloud."""
    by_name = _live_where(ChangeRequest.cvm_id.key, bindparam("cvm_id"))
    # Where no UUID was told this is null, which is no match.
    by_uuid = _live_where(ChangeRequest.vm_uuid.key, bindparam("told_vm_uuid", type_=Text))
    return func.coalesce(by_name, by_uuid)


def _live_where(column: str, value: BindParameter[Any]) -> ScalarSelect[Any]:
    """Of the workspace's live requests one with a value, by the column's own index, however many are live."""
    other = aliased(ChangeRequest)
    # One whose end is wished is no obstacle: its successor waits for that.
    stays = (other.cancel_requested_at.is_(None), other.superseded_by.is_(None))
    holds = other.state.in_(plain(*_HOLDS_CVM))
    of_cvm = (other.workspace_id == bindparam("workspace_id"), holds, getattr(other, column) == value)
    return select(other.id).where(*of_cvm, *stays).limit(1).scalar_subquery()


def _inserting() -> Prepared:
    """Store a change request and tell its row, in the order of its table's columns."""
    default = select(Workspace.deadline_seconds).where(Workspace.id == bindparam("workspace_id")).scalar_subquery()
    seconds = func.coalesce(bindparam("deadline_seconds", type_=BigInteger), default)
    computed = {
        "supersedes": _met(),
        "deadline_at": bindparam("created_at", type_=_REQUESTS.c.created_at.type) + seconds * _SECOND,
        "due_at": func.now(),
    }
    given = parameters_for(_REQUESTS, (*_OF_ALL, *_OF_PREPARED))
    return Prepared.of(insert(_REQUESTS).values(**given, **computed).returning(*_REQUESTS.c))


_INSERT: Final = _inserting()


def _insert(session: Session, values: Mapping[str, Any]) -> ChangeRequest:
    """Store a change request; its row."""
    (stored,) = perform(session, _INSERT, values)
    return unattached(ChangeRequest, stored)


def submit(database: Database, submission: Submission, now: datetime, actor: Actor) -> ChangeRequest:
    """Store a change request in ``received``, with its first event.

    Raises:
        TokenAlreadySubmitted: see there.
        NotAllowedHere: ``allow_without_approval`` or ``commit_policy`` in a workspace that does not permit it.
        CvmHeld: another live change request of the CVM is known.
        NeverInTime: see there.
    """
    request_id = database.new_id("cr")
    try:
        with database.transaction() as session:
            _check_permitted(session, submission)
            row = _insert(session, _values(database, request_id, submission, now))
            if submission.prepared is not None:
                _hold(database, session, row, submission.prepared)
            if row.not_before is not None and row.not_before >= row.deadline_at:
                raise NeverInTime
            if row.supersedes is not None:
                _take_place(session, row, submission.on_conflict)
            events.append(database, session, row, name=State.RECEIVED.value, actor=actor, now=now)
    except IntegrityError as error:
        if "commit_token_fingerprint" in str(error.orig):
            with database.transaction() as session:
                holder = _holder_of(database, session, submission)
            raise TokenAlreadySubmitted(holder) from error
        raise
    return row


def _check_permitted(session: Session, submission: Submission) -> None:
    loosens = submission.commit_policy is CommitPolicy.AUTO and not submission.may_loosen
    if not submission.allow_without_approval and not loosens:
        return
    workspace = session.execute(
        select(Workspace.allow_without_approval, Workspace.commit_policy).where(Workspace.id == submission.workspace_id)
    ).one()
    if submission.allow_without_approval and not workspace.allow_without_approval:
        raise NotAllowedHere("allow_without_approval")
    if loosens and workspace.commit_policy != CommitPolicy.AUTO:
        raise NotAllowedHere("commit_policy")


def _take_place(session: Session, row: ChangeRequest, on_conflict: OnConflict) -> None:
    """Have the change request that the new one met leave its place, or refuse the new one."""
    older = str(row.supersedes)
    if on_conflict is OnConflict.REFUSE:
        raise CvmHeld(older)
    if superseding.wish(session, older, row.id):
        return
    if session.scalar(select(ChangeRequest.state).where(ChangeRequest.id == older)) in _HOLDS_CVM:
        raise CvmHeld(older, commits=True)
    # It ended or committed this moment.
    session.execute(update(ChangeRequest).where(ChangeRequest.id == row.id).values(supersedes=None))
    row.supersedes = None


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
    values: dict[str, Any] = {
        "id": request_id,
        "workspace_id": submission.workspace_id,
        "state": State.RECEIVED.value,
        "state_entered_at": now,
        "intake": Intake.PATCH.value if submission.prepared is None else Intake.PREPARED.value,
        "cvm_id": submission.cvm_id,
        "title": submission.title,
        "change_reason": submission.change_reason,
        "change_links": list(submission.change_links),
        "change_metadata": dict(submission.change_metadata),
        "on_conflict": submission.on_conflict.value,
        "commit_policy": _own_policy(submission),
        "not_before": submission.not_before,
        "retry_of": submission.retry_of,
        "submitted_by": submission.submitted_by,
        "patch": submission.patch,
        "allow_without_approval": submission.allow_without_approval,
        "warnings": list(submission.warnings),
        "deadline_seconds": submission.deadline_seconds,
        "told_vm_uuid": submission.vm_uuid,
        "api_request_id": submission.api_request_id,
        "traceparent": submission.traceparent,
        "created_at": now,
        "updated_at": now,
        **dict.fromkeys(_OF_PREPARED),
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


def _own_policy(submission: Submission) -> str | None:
    """The policy to keep: without the right to loosen the workspace's, ``auto`` says no more than that."""
    policy = submission.commit_policy
    return None if policy is None or (policy is CommitPolicy.AUTO and not submission.may_loosen) else policy.value


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
