"""Lists of change requests and of their events, as the API pages through them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, or_, select, tuple_
from sqlalchemy.orm import Session

from service.domain.states import TERMINAL, State
from service.store.tables import ChangeRequest, Event


class Sort(StrEnum):
    """Order of a list; a minus puts the newest first. Ids sort by creation."""

    OLDEST = "created_at"
    NEWEST = "-created_at"
    LEAST_RECENTLY_UPDATED = "updated_at"
    MOST_RECENTLY_UPDATED = "-updated_at"

    @property
    def descends(self) -> bool:
        """Whether the newest come first."""
        return self.value.startswith("-")

    @property
    def by_update(self) -> bool:
        """Whether the time of the last update decides."""
        return self.value.endswith("updated_at")


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a list: just behind a change request.

    Attributes:
        updated_at: of that change request when it was shown; only where the order needs it.
    """

    sort: Sort
    id: str
    updated_at: datetime | None = None

    @classmethod
    def behind(cls, row: ChangeRequest, sort: Sort) -> "Place":
        """The place behind a row."""
        return cls(sort, row.id, row.updated_at if sort.by_update else None)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which change requests to list; ``None`` means any."""

    state: State | None = None
    cvm_id: str | None = None
    compose_hash: str | None = None
    live: bool | None = None
    retry_of: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """What a row must meet."""
        given: list[ColumnElement[bool]] = []
        if self.state is not None:
            given.append(ChangeRequest.state == self.state.value)
        if self.cvm_id is not None:
            names = (ChangeRequest.cvm_id, ChangeRequest.vm_uuid, ChangeRequest.cvm_name)
            given.append(or_(*(name == self.cvm_id for name in names)))
        if self.compose_hash is not None:
            given.append(ChangeRequest.compose_hash == self.compose_hash)
        if self.live is not None:
            ended = ChangeRequest.state.in_([state.value for state in TERMINAL])
            given.append(~ended if self.live else ended)
        if self.retry_of is not None:
            given.append(ChangeRequest.retry_of == self.retry_of)
        return given


def listing(
    session: Session,
    workspace_id: str,
    filters: Filters,
    *,
    sort: Sort = Sort.NEWEST,
    after: Place | None = None,
    limit: int,
) -> Sequence[ChangeRequest]:
    """Change requests of a workspace in an order, those behind a place of the same order."""
    statement = select(ChangeRequest).where(ChangeRequest.workspace_id == workspace_id, *filters.conditions())
    keys = (ChangeRequest.updated_at, ChangeRequest.id) if sort.by_update else (ChangeRequest.id,)
    if after is not None:
        known = (after.updated_at, after.id) if sort.by_update else (after.id,)
        here = tuple_(*keys)
        statement = statement.where(here < known if sort.descends else here > known)
    order = [key.desc() if sort.descends else key.asc() for key in keys]
    return session.scalars(statement.order_by(*order).limit(limit)).all()


def events_of(session: Session, row: ChangeRequest, *, after: int, limit: int) -> Sequence[Event]:
    """Events of a change request with a sequence number above ``after``, in order."""
    return session.scalars(
        select(Event).where(Event.change_request_id == row.id, Event.seq > after).order_by(Event.seq).limit(limit)
    ).all()
