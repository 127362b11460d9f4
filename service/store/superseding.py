"""One change request taking the place of an older one of its CVM. The older one's lease holder ends it."""

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, aliased

from service.domain.conflicts import OnConflict
from service.domain.errors import CountersignError, CvmBeingFreed, CvmBusy
from service.domain.states import HOLDS_CVM
from service.store import leases
from service.store.tables import ChangeRequest

_HOLDS = ChangeRequest.state.in_([state.value for state in HOLDS_CVM])


def wish(session: Session, older: str, newer: str) -> bool:
    """Store the wish that ``newer`` takes the place of ``older``; ``False`` when that is over or commits.

    A request that somebody else takes the place of already, or that was cancelled, needs no further wish.
    """
    statement = (
        update(ChangeRequest)
        .where(ChangeRequest.id == older, _HOLDS, ChangeRequest.commit_attempted_at.is_(None))
        .values(
            superseded_by=func.coalesce(ChangeRequest.superseded_by, newer),
            due_at=func.clock_timestamp(),
            rung_at=None,
        )
        .returning(ChangeRequest.id)
        .execution_options(synchronize_session=False)
    )
    return session.scalar(statement) is not None


def ring_successor(session: Session, row: ChangeRequest) -> None:
    """The CVM of a request that ended is free for the one that takes its place."""
    if row.superseded_by is not None:
        leases.ring(session, ChangeRequest, ChangeRequest.id == row.superseded_by, _HOLDS)


def on_collision(session: Session, request_id: str, vm_uuid: str | None) -> CountersignError:
    """What it means for a change request that another one holds the CVM: to wait for its end, or to end itself.

    Only an older one is superseded: whoever came later knows better.
    """
    mine, holder = aliased(ChangeRequest), ChangeRequest
    row = session.execute(
        select(mine.on_conflict, holder.id, holder.cancel_requested_at, holder.superseded_by)
        .join(holder, holder.workspace_id == mine.workspace_id)
        .where(mine.id == request_id, holder.id != mine.id, holder.vm_uuid == vm_uuid, _HOLDS)
    ).one_or_none()
    if row is None:
        return CvmBeingFreed("another change request of this CVM was live until just now")
    if row.cancel_requested_at is not None or row.superseded_by is not None:
        return CvmBeingFreed(f"change request {row.id} of this CVM is ending")
    if row.on_conflict == OnConflict.REFUSE or row.id > request_id:
        return CvmBusy(f"change request {row.id} of this CVM is live")
    if not wish(session, row.id, request_id):
        return CvmBusy(f"the commit of change request {row.id} of this CVM has started")
    named = update(ChangeRequest).where(ChangeRequest.id == request_id).values(supersedes=row.id)
    session.execute(named)
    return CvmBeingFreed(f"change request {row.id} of this CVM is being superseded")
