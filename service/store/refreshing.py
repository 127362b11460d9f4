"""Asking for a fresh commit token, or handing one in. The lease holder prepares; a token that is there is taken now."""

from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.domain.outcomes import Notice
from service.domain.prepares import TOKEN_LIFETIME
from service.domain.states import TERMINAL, State
from service.store import events, tokens
from service.store.database import Database
from service.store.requests import AlreadyEnded, CommitStarted, PreparedUpdate, TokenAlreadySubmitted, holder_of_token
from service.store.tables import ChangeRequest, InboundEvent


class NothingPrepared(Exception):
    """There is no token yet that could be renewed."""


class NoPatch(Exception):
    """The service cannot prepare the update again: it does not know the patch."""


class AnotherUpdate(Exception):
    """What was prepared is not the update of this change request.

    Attributes:
        member: the member of ``PreparedUpdate`` that differs, or ``cvm_id``.
    """

    def __init__(self, member: str) -> None:
        super().__init__(f"{member} differs")
        self.member = member


def wish_refresh(database: Database, workspace_id: str, request_id: str, now: datetime, actor: Actor) -> None:
    """Store the wish for a fresh token; the lease holder prepares the patch again.

    Raises:
        AlreadyEnded: in a terminal state.
        CommitStarted: a commit attempt is stored.
        NothingPrepared: see there.
        NoPatch: see there.
    """
    with database.transaction() as session:
        row = _refreshable(session, workspace_id, request_id)
        if row.patch is None:
            raise NoPatch
        asked = row.refresh_requested_at
        wished = _write(session, row, {"refresh_requested_at": asked or now, "refresh_due_at": None}, now)
        if asked is None:
            events.append(database, session, wished, name=Notice.REFRESH_REQUESTED.value, actor=actor, now=now)


def hand_in(
    database: Database,
    workspace_id: str,
    request_id: str,
    prepared: PreparedUpdate,
    vm_uuid: str | None,
    now: datetime,
    actor: Actor,
) -> None:
    """Take a token of the same update, prepared again by somebody else.

    Args:
        database: the database.
        workspace_id: of the caller.
        request_id: of a change request that exists.
        prepared: what Phala Cloud answered.
        vm_uuid: the dashed CVM that it says it is for, if it says so.
        now: the time.
        actor: who hands it in.

    Raises:
        AlreadyEnded: in a terminal state.
        CommitStarted: a commit attempt is stored.
        NothingPrepared: see there.
        AnotherUpdate: see there.
        TokenAlreadySubmitted: see there.
    """
    with database.transaction() as session:
        row = _refreshable(session, workspace_id, request_id)
        _compare(row, prepared, vm_uuid)
        held = tokens.columns(database, row.id, prepared.commit_token)
        told = session.scalar(
            select(InboundEvent.expires_at).where(
                InboundEvent.workspace_id == workspace_id,
                InboundEvent.token_fingerprint == held["commit_token_fingerprint"],
            )
        )
        # Where Phala Cloud did not tell: later than this it is dead for certain.
        expires_at = told or now + TOKEN_LIFETIME
        fresh: dict[str, Any] = {"token_expires_at": expires_at, "token_told": None, "refresh_requested_at": None}
        try:
            # Row, then token, as whoever submits one does.
            with session.begin_nested():
                refreshed = _write(session, row, {**held, **fresh, **_SETTLED}, now)
                new = tokens.hold(session, row.id, held["commit_token_fingerprint"])
        except IntegrityError:
            new = False
        if not new:
            raise TokenAlreadySubmitted(holder_of_token(database, session, workspace_id, prepared.commit_token))
        extra = {"token_expires_at": expires_at.isoformat()}
        name = Notice.TOKEN_REFRESHED.value
        events.append(database, session, refreshed, name=name, actor=actor, now=now, extra=extra)


_SETTLED = {
    "refresh_attempted_at": None,
    "refresh_due_at": None,
    "refresh_attempts": 0,
    "refresh_reason": None,
    "refresh_detail": None,
}


def _refreshable(session: Session, workspace_id: str, request_id: str) -> ChangeRequest:
    row = session.scalars(
        select(ChangeRequest)
        .where(ChangeRequest.id == request_id, ChangeRequest.workspace_id == workspace_id)
        .with_for_update(key_share=True)
    ).one()
    if State(row.state) in TERMINAL:
        raise AlreadyEnded
    if row.commit_attempted_at is not None or row.state == State.COMMITTED:
        raise CommitStarted
    if row.state == State.RECEIVED:
        raise NothingPrepared
    return row


def _compare(row: ChangeRequest, prepared: PreparedUpdate, vm_uuid: str | None) -> None:
    if vm_uuid is not None and vm_uuid != row.vm_uuid:
        raise AnotherUpdate("cvm_id")
    for member in ("compose_hash", "app_contract", "device_id", "chain_id"):
        if getattr(row, member) != getattr(prepared, member):
            raise AnotherUpdate(member)


def _write(session: Session, row: ChangeRequest, values: dict[str, Any], now: datetime) -> ChangeRequest:
    due = {"due_at": func.clock_timestamp(), "rung_at": None, "updated_at": now}
    statement = update(ChangeRequest).where(ChangeRequest.id == row.id).values(**values, **due).returning(ChangeRequest)
    return session.scalars(statement, execution_options={"populate_existing": True}).one()
