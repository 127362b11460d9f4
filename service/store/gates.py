"""The gates before a commit, as SQL: what snapshots show, what is checked again when an attempt is stored, who waits.

Rows of workspaces are locked before those of change requests.
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Select, Text, and_, bindparam, case, func, or_, select
from sqlalchemy.orm import Session, aliased

from service.domain.chain import FactKind
from service.domain.gates import CommitPolicy, Freeze, Gates
from service.domain.reasons import Reason
from service.domain.states import State
from service.store import leases
from service.store.columns import plain
from service.store.database import Prepared, perform
from service.store.leases import Lease, held, is_held, parameters_of
from service.store.tables import ChainFact, ChangeRequest, Workspace

FREEZE = (Workspace.commits_frozen_at, Workspace.commits_frozen_by, Workspace.commits_frozen_reason)

_other = aliased(ChangeRequest)
(_REGISTERED, _COMMITTED, _FAILED) = plain(State.REGISTERED, State.COMMITTED, State.FAILED)
_COMMITTING = ChangeRequest.state == _REGISTERED
_REMOVALS = plain(FactKind.HASH_REMOVED, FactKind.DEVICE_REMOVED)


def _of_app_of(mine: type[ChangeRequest]) -> ColumnElement[bool]:
    return and_(
        _other.workspace_id == mine.workspace_id,
        _other.chain_id == mine.chain_id,
        _other.app_contract == mine.app_contract,
    )


def _others_in_flight() -> Select[str]:
    """Ids of other change requests of the same app contract between their first attempt and their end."""
    attempted = and_(_other.state == _REGISTERED, _other.commit_attempted_at.is_not(None))
    in_flight = or_(_other.state == _COMMITTED, attempted)
    return select(_other.id).where(_of_app_of(ChangeRequest), _other.id != ChangeRequest.id, in_flight)


def _failures() -> Select[str]:
    """Ids of change requests of the same rollout whose update failed since this one was made or released."""
    since = func.greatest(ChangeRequest.created_at, ChangeRequest.released_at)
    failed = and_(_other.state == _FAILED, _other.correlation_id.is_not(None))
    rollout = and_(_of_app_of(ChangeRequest), _other.compose_hash == ChangeRequest.compose_hash)
    return select(_other.id).where(rollout, failed, _other.state_entered_at > since)


def latest_failure(request_id: str) -> Select[datetime | None]:
    """When the last failure was that holds a change request."""
    ended = func.max(_other.state_entered_at)
    return _failures().with_only_columns(ended).where(ChangeRequest.id == request_id)


def _removals() -> Select[str]:
    """What may have taken a change request off the allowlist since its approval."""
    return select(ChainFact.kind).where(
        ChainFact.chain_id == ChangeRequest.chain_id,
        ChainFact.app_contract == ChangeRequest.app_contract,
        or_(
            and_(
                ChainFact.kind.in_(_REMOVALS),
                ChainFact.value.in_([ChangeRequest.compose_hash, ChangeRequest.device_id]),
            ),
            ChainFact.kind == FactKind.ANY_DEVICE_SET.value,
        ),
        ChainFact.block_number >= ChangeRequest.evidence_block_number,
        ChainFact.orphaned_at.is_(None),
    )


def columns() -> tuple[Any, ...]:
    """What to select of a change request and its workspace, as ``gates_of`` reads it.

    Others of its app, and the chain, are looked at only where a commit may follow.
    """
    in_flight = func.array(_others_in_flight().order_by(_other.id).scalar_subquery())
    failed = _failures().limit(1).scalar_subquery()
    return (
        Workspace.commit_policy,
        Workspace.parallel_commits,
        *FREEZE,
        case((_COMMITTING, in_flight)),
        case((_COMMITTING, failed)),
        and_(_COMMITTING, _removals().exists()),
    )


def gates_of(row: ChangeRequest, *selected: Any) -> Gates:  # noqa: ANN401 - of any row
    """The gates before a change request's commit, of what ``columns`` selected."""
    policy, parallel, frozen_at, frozen_by, frozen_reason, in_flight, failed, removed = selected
    return Gates(
        policy=CommitPolicy(row.commit_policy or policy),
        not_before=row.not_before,
        released_at=row.released_at,
        freeze=freeze_of(frozen_at, frozen_by, frozen_reason),
        failed=failed,
        in_flight=tuple(in_flight or ()),
        parallel=parallel,
        removed=removed,
    )


def freeze_of(at: datetime | None, by: str | None, reason: str | None) -> Freeze | None:
    """The freeze switch of a workspace, of what ``FREEZE`` selected: all of it is there, or nothing."""
    return None if at is None or by is None or reason is None else Freeze(at, by, reason)


def open_for(session: Session, lease: Lease) -> dict[str, Any] | None:
    """Parameters of ``ATTEMPT_PERMITTED`` for the next attempt of a leased change request; ``None`` if it may not be.

    The workspace stays locked until the transaction ends: attempts of a workspace are stored one after the other, and
    none beside a freeze. The condition must be met by a statement of its own, which sees what the lock waited for.
    """
    found = perform(session, _LOCK_WORKSPACE, parameters_of(lease))
    if not found:
        return None
    ((policy, parallel, frozen_at),) = found
    return None if frozen_at is not None else {"policy": policy, "parallel": parallel}


def _lock_workspace() -> Select[str, int, datetime | None]:
    mine = select(ChangeRequest.workspace_id).where(is_held(ChangeRequest)).scalar_subquery()
    return (
        select(Workspace.commit_policy, Workspace.parallel_commits, Workspace.commits_frozen_at)
        .where(Workspace.id == mine)
        .with_for_update(key_share=True)
    )


def _attempt_permitted() -> ColumnElement[bool]:
    in_flight = _others_in_flight().with_only_columns(func.count(_other.id)).scalar_subquery()
    at_once = ChangeRequest.state == State.RECEIVED.value
    first = and_(
        ChangeRequest.cancel_requested_at.is_(None),
        ChangeRequest.superseded_by.is_(None),
        or_(
            ChangeRequest.released_at.is_not(None),
            func.coalesce(ChangeRequest.commit_policy, bindparam("policy", type_=Text)) != CommitPolicy.HOLD.value,
        ),
        ~_failures().exists(),
        or_(at_once, in_flight < bindparam("parallel", type_=BigInteger)),
    )
    return or_(ChangeRequest.commit_attempted_at.is_not(None), first)


_LOCK_WORKSPACE: Final = Prepared.of(_lock_workspace())
ATTEMPT_PERMITTED: Final = _attempt_permitted()
"""Condition under which an attempt may be stored, see ``open_for``."""


def ring_after_end(session: Session, lease: Lease) -> None:
    """Ring for the change requests that wait for a leased one to leave its app; before it is written.

    They are locked together with it, in the order of their ids.
    """
    mine = aliased(ChangeRequest)
    waiting = (
        select(_other.id)
        .join(mine, _of_app_of(mine))
        .where(
            mine.id == lease.row_id,
            _other.state == State.REGISTERED.value,
            _other.reason == Reason.WAITING_FOR_OTHER_COMMITS.value,
        )
    )
    leases.ring(session, ChangeRequest, or_(held(lease), ChangeRequest.id.in_(waiting)))
