"""Rows of the audit log as what its hashes cover."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.domain.audit import Chain, Entry, Link, link, moment
from service.store.tables import Event


def link_of(row: Event, seq: int) -> Link:
    """An event as a link of its chain, of which it is number ``seq``."""
    entry = Entry(
        id=row.id,
        workspace_id=row.workspace_id,
        change_request_id=row.change_request_id,
        seq=seq,
        type=row.type,
        state=row.state,
        created_at=row.created_at,
        actor=row.actor,
        origin=row.origin,
        body=row.body,
    )
    return link(entry, row.previous_hash, row.hash)


def json_of(row: Event) -> dict[str, object]:
    """An event as a line of an export, as ``service.domain.audit.link_of_json`` reads it."""
    return {
        "id": row.id,
        "workspace_id": row.workspace_id,
        "change_request_id": row.change_request_id,
        "seq": row.seq,
        "type": row.type,
        "state": row.state,
        "created_at": moment(row.created_at),
        "actor": row.actor,
        "origin": row.origin,
        "body": row.body,
        "previous_hash": row.previous_hash,
        "hash": row.hash,
    }


def unchained_hash(session: Session, request_id: str, after: int, previous: str) -> str:
    """The hash of the last event of a change request where a version without hashes wrote those behind ``after``.

    Args:
        session: in which the change request is locked.
        request_id: of the change request.
        after: number of the last event that has a hash, 0 for none.
        previous: its hash.
    """
    chain = Chain(seq=after, hash=previous)
    query = select(Event).where(Event.change_request_id == request_id, Event.seq > after).order_by(Event.seq)
    for row in session.scalars(query):
        chain.follow(link_of(row, row.seq or 0))
    return chain.hash or previous
