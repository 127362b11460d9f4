"""The audit log as operators read it: every chain followed against the database, and events in the order of the feed.

Chains are read by pages, each of one statement that holds events and the end that their chain should have: nothing that
is appended meanwhile looks like a break, and memory does not grow with what is read.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Select, and_, func, null, or_, select, text
from sqlalchemy.orm import Session

from service.domain.audit import GENESIS, Broken, Chain
from service.store import feed
from service.store.audit_rows import json_of, link_of
from service.store.database import Database
from service.store.feed import FeedFilters, Place
from service.store.tables import ActChain, ChangeRequest, Event, Workspace

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which chains to follow; ``None`` means any.

    Attributes:
        change_request_id: this one alone, without the workspace's own acts.
        since: change requests that changed since then; the acts of workspaces are followed in any case.
    """

    workspace_id: str | None = None
    change_request_id: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """How many events were read up to now."""

    events: int


@dataclass(frozen=True, slots=True)
class Checked:
    """A chain that was followed to its end, or to where it is broken.

    Attributes:
        name: the id of its change request, or of its workspace.
        uncovered: events at its end that no hash covers: a version wrote them that did not know hashes.
        begins: number of its first event; above 1 where retention deleted what was before it.
        removed: whether retention deleted all of it.
    """

    name: str
    events: int
    uncovered: int = 0
    begins: int = 1
    removed: bool = False
    broken: Broken | None = None


@dataclass(frozen=True, slots=True)
class _End:
    """What the end of a chain should be."""

    seq: int
    chained_seq: int
    hash: str
    deleted_at: datetime | None


_Rows = Select[str, int | None, int | None, str | None, datetime | None, Event | None]
_Build = Callable[[Wanted, str, int], _Rows]


def check(database: Database, wanted: Wanted, *, page: int = _PAGE) -> Iterator[Read | Checked]:
    """Follow every chain that is wanted; a ``Read`` after each page of so many rows, a ``Checked`` for each chain."""
    read = 0
    builds: Sequence[_Build] = (_requests,) if wanted.change_request_id else (_workspaces, _requests)
    for build in builds:
        for found in _followed(database, wanted, build, page):
            if isinstance(found, Read):
                read += found.events
                yield Read(read)
            else:
                yield found


def _followed(database: Database, wanted: Wanted, build: _Build, page: int) -> Iterator[Read | Checked]:
    follower: _Follower | None = None
    after, after_seq = "", 0
    while True:
        with database.reads() as session:
            rows = session.execute(build(wanted, after, after_seq).limit(page)).all()
        for name, seq, chained_seq, known_hash, deleted_at, event in rows:
            if follower is None or follower.name != name:
                if follower is not None:
                    yield follower.ended()
                follower = _Follower(name, may_begin_late=build is _workspaces)
            follower.end = _End(seq or 0, chained_seq or 0, known_hash or GENESIS, deleted_at)
            if event is not None:
                follower.take(event)
            after, after_seq = name, 0 if event is None else event.seq or 0
        yield Read(sum(row[-1] is not None for row in rows))
        if len(rows) < page:
            break
    if follower is not None:
        yield follower.ended()


def _requests(wanted: Wanted, after: str, after_seq: int) -> _Rows:
    of = ChangeRequest
    query: _Rows = (
        select(of.id, of.last_event_seq, of.last_chained_seq, of.last_event_hash, of.events_deleted_at, Event)
        .outerjoin(Event, Event.change_request_id == of.id)
        .where(of.id >= after, or_(of.id > after, Event.seq > after_seq))
        .order_by(of.id, Event.seq)
    )
    if wanted.workspace_id is not None:
        query = query.where(of.workspace_id == wanted.workspace_id)
    if wanted.change_request_id is not None:
        query = query.where(of.id == wanted.change_request_id)
    return query if wanted.since is None else query.where(of.updated_at >= wanted.since)


def _workspaces(wanted: Wanted, after: str, after_seq: int) -> _Rows:
    act = and_(Event.workspace_id == Workspace.id, Event.change_request_id.is_(None), Event.seq.is_not(None))
    query: _Rows = (
        select(Workspace.id, ActChain.last_seq, ActChain.last_seq, ActChain.last_hash, null(), Event)
        .outerjoin(ActChain, ActChain.workspace_id == Workspace.id)
        .outerjoin(Event, act)
        .where(Workspace.id >= after, or_(Workspace.id > after, Event.seq > after_seq))
        .order_by(Workspace.id, Event.seq)
    )
    return query if wanted.workspace_id is None else query.where(Workspace.id == wanted.workspace_id)


class _Follower:
    """A chain on its way."""

    def __init__(self, name: str, *, may_begin_late: bool) -> None:
        self.name = name
        self.end = _End(0, 0, GENESIS, None)
        self._may_begin_late = may_begin_late
        self._chain: Chain | None = None
        self._broken: Broken | None = None
        self._events = 0

    def take(self, event: Event) -> None:
        self._events += 1
        if self._broken is not None:
            return
        link = link_of(event, event.seq or 0)
        if self._chain is None:
            self._chain = Chain.in_the_middle(link) if self._may_begin_late else Chain()
        self._broken = self._chain.follow(link)

    def ended(self) -> Checked:
        if self._chain is None:
            removed = self.end.deleted_at is not None
            missing = Broken(1, "is missing") if self.end.seq and not removed else None
            return Checked(self.name, 0, removed=removed, broken=missing)
        broken = self._broken or self._at_its_end(self._chain)
        return Checked(self.name, self._events, self._chain.uncovered, self._chain.begins, broken=broken)

    def _at_its_end(self, chain: Chain) -> Broken | None:
        if chain.seq != self.end.seq:
            missing = chain.seq < self.end.seq
            return Broken(min(chain.seq, self.end.seq) + 1, "is missing" if missing else "was added by other means")
        if (chain.chained_seq, chain.chained_hash) != (self.end.chained_seq, self.end.hash):
            return Broken(chain.seq, "is not what the chain should end with: the end was cut off and written again")
        return None


def allow_deletion(session: Session) -> None:
    """Let the rest of the transaction delete events: for retention, which deletes those of a change request whole."""
    session.execute(text("SET LOCAL countersign.retention = 'on'"))


def unnumbered(session: Session, workspace_id: str | None) -> int:
    """Events about webhook endpoints from before there was a chain for them."""
    query = select(func.count()).where(Event.change_request_id.is_(None), Event.seq.is_(None))
    return session.scalars(query if workspace_id is None else query.where(Event.workspace_id == workspace_id)).one()


def export(database: Database, workspace_id: str, after: Place, *, page: int = _PAGE) -> Iterator[dict[str, object]]:
    """Every event of a workspace behind a place, as a line of an export; ``cursor`` is the place of each."""
    while True:
        with database.transaction() as session:
            rows = feed.read(session, workspace_id, FeedFilters(acts=True), after=after, limit=page)
        for row in rows:
            yield {"cursor": f"{row.transaction_id}.{row.position}", **json_of(row)}
        if len(rows) < page:
            return
        after = Place(rows[-1].transaction_id, rows[-1].position)
