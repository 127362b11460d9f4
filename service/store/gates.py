"""The gates before a commit, as SQL: what snapshots show, what is checked again when an attempt is stored, who waits.

Rows of workspaces are locked before those of change requests.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from service.domain.gates import CommitPolicy, Freeze, Gates
from service.domain.reasons import Reason
from service.domain.states import State
from service.store import leases
from service.store.leases import Lease, held
from service.store.tables import ChangeRequest, Workspace

FREEZE = (Workspace.commits_frozen_at, Workspace.commits_frozen_by, Workspace.commits_frozen_reason)

_mine = aliased(ChangeRequest)
_other = aliased(ChangeRequest)
_OF_APP = and_(
    _other.workspace_id == _mine.workspace_id,
    _other.chain_id == _mine.chain_id,
    _other.app_contract == _mine.app_contract,
)
_IN_FLIGHT = or_(
    _other.state == State.COMMITTED.value,
    and_(_other.state == State.REGISTERED.value, _other.commit_attempted_at.is_not(None)),
)


def others_in_flight(request_id: str) -> Select[str]:
    """Ids of other change requests of the same app contract between their first attempt and their end."""
    return select(_other.id).join(_mine, _OF_APP).where(_mine.id == request_id, _other.id != _mine.id, _IN_FLIGHT)


def failures(request_id: str) -> Select[str]:
    """Ids of change requests of the same rollout whose update failed since this one was made or released."""
    since = func.greatest(_mine.created_at, _mine.released_at)
    rollout = and_(_OF_APP, _other.compose_hash == _mine.compose_hash)
    failed = and_(_other.state == State.FAILED.value, _other.correlation_id.is_not(None))
    return select(_other.id).join(_mine, rollout).where(_mine.id == request_id, failed, _other.state_entered_at > since)


def latest_failure(request_id: str) -> Select[datetime | None]:
    """When the last of those ended."""
    return failures(request_id).with_only_columns(func.max(_other.state_entered_at))


def columns(row: ChangeRequest) -> list[Any]:
    """What to select from the workspace of a change request, as ``gates_of`` reads it.

    Others of its app are looked for only where a commit may follow.
    """
    shown: list[Any] = [Workspace.commit_policy, Workspace.parallel_commits, *FREEZE]
    if row.state == State.REGISTERED.value:
        shown.append(func.array(others_in_flight(row.id).order_by(_other.id).scalar_subquery()).label("in_flight"))
        shown.append(failures(row.id).limit(1).scalar_subquery().label("failed"))
    return shown


def gates_of(row: ChangeRequest, workspace: Row[Any]) -> Gates:
    """The gates before a change request's commit, of what ``columns`` selected."""
    found = workspace._mapping  # noqa: SLF001 - public in spite of its name
    return Gates(
        policy=CommitPolicy(row.commit_policy or found["commit_policy"]),
        not_before=row.not_before,
        released_at=row.released_at,
        freeze=freeze_of(*(found[column.key] for column in FREEZE)),
        failed=found.get("failed"),
        in_flight=tuple(found.get("in_flight", ())),
        parallel=found["parallel_commits"],
    )


def freeze_of(at: datetime | None, by: str | None, reason: str | None) -> Freeze | None:
    """The freeze switch of a workspace, of what ``FREEZE`` selected: all of it is there, or nothing."""
    return None if at is None or by is None or reason is None else Freeze(at, by, reason)


def open_for(session: Session, lease: Lease) -> tuple[ColumnElement[bool], ...] | None:
    """Conditions under which the next attempt of a leased change request may be stored; ``None`` if it may not.

    The workspace stays locked until the transaction ends: attempts of a workspace are stored one after the other, and
    none beside a freeze. The conditions must be met by a statement of its own, which sees what the lock waited for.
    """
    mine = select(ChangeRequest.workspace_id).where(held(lease)).scalar_subquery()
    workspace = session.execute(
        select(Workspace.commit_policy, Workspace.parallel_commits, Workspace.commits_frozen_at)
        .where(Workspace.id == mine)
        .with_for_update(key_share=True)
    ).one_or_none()
    if workspace is None or workspace.commits_frozen_at is not None:
        return None
    request_id = str(lease.row_id)
    in_flight = select(func.count()).select_from(others_in_flight(request_id).subquery()).scalar_subquery()
    first = and_(
        ChangeRequest.cancel_requested_at.is_(None),
        ChangeRequest.superseded_by.is_(None),
        or_(
            ChangeRequest.released_at.is_not(None),
            func.coalesce(ChangeRequest.commit_policy, workspace.commit_policy) != CommitPolicy.HOLD.value,
        ),
        ~exists(failures(request_id)),
        in_flight < workspace.parallel_commits,
    )
    return (or_(ChangeRequest.commit_attempted_at.is_not(None), first),)


def ring_after_end(session: Session, lease: Lease) -> None:
    """Ring for the change requests that wait for a leased one to leave its app; before it is written.

    They are locked together with it, in the order of their ids.
    """
    waiting = (
        select(_other.id)
        .join(_mine, _OF_APP)
        .where(
            _mine.id == lease.row_id,
            _other.state == State.REGISTERED.value,
            _other.reason == Reason.WAITING_FOR_OTHER_COMMITS.value,
        )
    )
    leases.ring(session, ChangeRequest, or_(held(lease), ChangeRequest.id.in_(waiting)))
