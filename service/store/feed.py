"""The events of a whole workspace in an order that never changes behind a reader.

Rows are ordered by the transaction that wrote them, then by position, and only those are shown whose transaction is
older than every running one (``pg_snapshot_xmin``): a transaction that commits late can only add behind what was read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, ColumnElement, Text, cast, func, or_, select, tuple_
from sqlalchemy.orm import Session

from service.domain.acts import Act
from service.store.tables import Event


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the feed: just behind an event."""

    transaction_id: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class FeedFilters:
    """Which events to show.

    Attributes:
        types: event types and prefixes such as ``change_request.*``; none means those that webhooks carry.
        acts: show acts on the workspace too, where ``types`` names none.
    """

    types: Sequence[str] = ()
    change_request_id: str | None = None
    acts: bool = False


def settled() -> ColumnElement[bool]:
    """Condition that nothing can be written before a row any more."""
    oldest = cast(cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), Text), BigInteger)
    return Event.transaction_id < oldest


def of_types(patterns: Sequence[str]) -> ColumnElement[bool]:
    """Condition that a filter lets an event through, as ``service.domain.webhooks.wants``; there must be a pattern."""
    return or_(
        *(
            Event.type.startswith(pattern[:-1], autoescape=True) if pattern.endswith("*") else Event.type == pattern
            for pattern in patterns
        )
    )


def place() -> ColumnElement[tuple[int, int]]:
    """Where a row stands in the order."""
    return tuple_(Event.transaction_id, Event.position)


def read(session: Session, workspace_id: str, filters: FeedFilters, *, after: Place, limit: int) -> Sequence[Event]:
    """Events behind a place, oldest first."""
    statement = select(Event).where(
        Event.workspace_id == workspace_id,
        place() > (after.transaction_id, after.position),
        settled(),
    )
    if filters.types:
        statement = statement.where(of_types(filters.types))
    elif not filters.acts:
        statement = statement.where(Event.type.not_in(list(Act)))
    if filters.change_request_id is not None:
        statement = statement.where(Event.change_request_id == filters.change_request_id)
    return session.scalars(statement.order_by(Event.transaction_id, Event.position).limit(limit)).all()
