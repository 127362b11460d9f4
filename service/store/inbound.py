"""Prepares heard of from Phala Cloud: stored once, decided by the holder of their CVM's request or without one.

Whoever stores one, and whoever ends a request, first locks the name of the CVM: either finds what the other left.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydantic import SecretStr
from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.domain.actors import Actor, ActorKind
from service.domain.prepares import (
    DOUBT,
    TOKEN_LIFETIME,
    HeardPrepare,
    Hearing,
    KnownPrepares,
    Verdict,
    judge_newcomer,
)
from service.domain.snapshots import Intake
from service.domain.states import HOLDS_CVM, State
from service.store import events, leases, tokens
from service.store.database import Database
from service.store.leases import Lease, held
from service.store.locks import lock_name
from service.store.sealing import SealingError
from service.store.tables import ChangeRequest, CommitToken, InboundEvent, Workspace

HEARD_TOKEN: Final = "heard_token"  # noqa: S105 - the name of a column
_HOLDS = [state.value for state in HOLDS_CVM]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """A prepare as a webhook told it. ``origin`` is where the webhook came from, see ``Actor``."""

    event_id: str
    vm_uuid: str
    cvm_name: str | None
    prepare: HeardPrepare
    origin: Mapping[str, str] | None = None


def hear(database: Database, workspace_id: str, told: Told, now: datetime) -> None:
    """Store a prepare once, and ring the request of its CVM; without one it is decided at once."""
    heard, row_id = told.prepare, database.new_id("inb")
    values = {
        "id": row_id,
        "workspace_id": workspace_id,
        "event_id": told.event_id,
        "vm_uuid": told.vm_uuid,
        "cvm_name": told.cvm_name,
        "chain_id": heard.chain_id,
        "app_contract": heard.app_contract,
        "device_id": heard.device_id,
        "compose_hash": heard.compose_hash,
        "token_fingerprint": database.sealer.fingerprint(heard.token),
        "token_sealed": database.sealer.seal(heard.token, purpose=HEARD_TOKEN, row_id=row_id),
        "expires_at": heard.expires_at,
        "received_at": now,
        "origin": told.origin,
    }
    with database.transaction() as session:
        lock_cvm(session, workspace_id, told.vm_uuid)
        stored = session.scalar(
            insert(InboundEvent).values(**values).on_conflict_do_nothing().returning(InboundEvent.id)
        )
        if stored is not None:
            settle(database, session, workspace_id, told.vm_uuid, now)


def lock_cvm(session: Session, workspace_id: str, vm_uuid: str) -> None:
    """Hold the name of a CVM until the transaction ends. Locked before proposals and change requests."""
    lock_name(session, f"cvm:{workspace_id}:{vm_uuid}")


def undecided(
    workspace_id: str | InstrumentedAttribute[str], vm_uuid: str | InstrumentedAttribute[str | None]
) -> ColumnElement[bool]:
    """Condition that a prepare is of a CVM, and that nobody decided on it."""
    return and_(
        InboundEvent.workspace_id == workspace_id, InboundEvent.vm_uuid == vm_uuid, InboundEvent.verdict.is_(None)
    )


def settle(database: Database, session: Session, workspace_id: str, vm_uuid: str, now: datetime) -> None:
    """Ring the request that holds a locked CVM, or decide what was heard of a CVM that nobody holds."""
    of_cvm = and_(ChangeRequest.workspace_id == workspace_id, ChangeRequest.vm_uuid == vm_uuid)
    waiting = session.scalars(
        select(InboundEvent).where(undecided(workspace_id, vm_uuid)).order_by(InboundEvent.expires_at.desc())
    ).all()
    if not waiting or leases.ring(session, ChangeRequest, of_cvm, ChangeRequest.state.in_(_HOLDS)):
        return
    for row in waiting:
        heard = _heard(database, session, row)
        if heard is None:
            continue
        verdict = judge_newcomer(heard, _known(session, row), now)
        request_id = _new_request(database, session, row, heard.token, now) if verdict is Verdict.NEW else None
        if verdict is Verdict.NEW and request_id is None:
            # Taken this moment by another: whose holder decides.
            leases.ring(session, ChangeRequest, of_cvm, ChangeRequest.state.in_(_HOLDS))
            return
        decide(session, {row.id: verdict}, request_id, now)
        session.refresh(row)


def decide(session: Session, verdicts: Mapping[str, Verdict], request_id: str | None, now: datetime) -> None:
    """Store verdicts by the id of the prepare; what is decided holds no token any more."""
    for row_id, verdict in verdicts.items():
        decided = {"verdict": verdict.value, "decided_at": now, "token_sealed": None, "change_request_id": request_id}
        waiting = update(InboundEvent).where(InboundEvent.id == row_id, InboundEvent.verdict.is_(None))
        session.execute(waiting.values(**decided))


def hearing(database: Database, lease: Lease) -> Hearing:
    """What was heard of the CVM of a leased change request, and the token that it holds now."""
    of_cvm = undecided(ChangeRequest.workspace_id, ChangeRequest.vm_uuid)
    query = select(ChangeRequest, InboundEvent).outerjoin(InboundEvent, of_cvm).where(held(lease))
    with database.reads() as session:
        found = session.execute(query.order_by(InboundEvent.expires_at)).all()
        if not found:
            return Hearing()
        request = found[0].ChangeRequest
        rows = [row.InboundEvent for row in found if row.InboundEvent is not None]
        prepares = [_heard(database, session, row, request.commit_token_fingerprint) for row in rows]
        minted_at = _minted_at(session, request) if rows else None
    return Hearing(tuple(heard for heard in prepares if heard is not None), minted_at, _token(database, request))


def _minted_at(session: Session, request: ChangeRequest) -> datetime | None:
    """When the token that a request holds was minted, if Phala Cloud told."""
    expires_at = session.scalar(
        select(InboundEvent.expires_at).where(
            InboundEvent.workspace_id == request.workspace_id,
            InboundEvent.token_fingerprint == request.commit_token_fingerprint,
        )
    )
    return None if expires_at is None else expires_at - TOKEN_LIFETIME


def _token(database: Database, request: ChangeRequest) -> SecretStr | None:
    sealed = request.commit_token_sealed
    try:
        return None if sealed is None else database.sealer.open(sealed, purpose=tokens.TOKEN, row_id=request.id)
    except SealingError as error:
        log.warning("a commit token cannot be opened: %s", error)
        return None


def _heard(
    database: Database, session: Session, row: InboundEvent, current: bytes | None = None
) -> HeardPrepare | None:
    """A row as a prepare; ``None``, and left for later, while its token does not open."""
    try:
        token = database.sealer.open(row.token_sealed or b"", purpose=HEARD_TOKEN, row_id=row.id)
    except SealingError as error:
        log.warning("the token of a heard prepare cannot be opened: %s", error)
        return None
    return HeardPrepare(
        id=row.id,
        chain_id=row.chain_id,
        app_contract=row.app_contract,
        device_id=row.device_id,
        compose_hash=row.compose_hash,
        token=token,
        expires_at=row.expires_at,
        ours=session.get(CommitToken, row.token_fingerprint) is not None,
        current=row.token_fingerprint == current,
    )


def _known(session: Session, row: InboundEvent) -> KnownPrepares:
    """What else is known of the prepares of a CVM that nobody holds."""
    others = (InboundEvent.workspace_id == row.workspace_id, InboundEvent.vm_uuid == row.vm_uuid)
    heard = session.scalar(select(func.max(InboundEvent.expires_at)).where(*others, InboundEvent.id != row.id))
    requests = session.scalars(
        select(ChangeRequest).where(
            ChangeRequest.workspace_id == row.workspace_id,
            ChangeRequest.vm_uuid == row.vm_uuid,
            ChangeRequest.state_entered_at >= row.expires_at - TOKEN_LIFETIME - DOUBT,
        )
    ).all()
    # When a token was minted that was handed in is not known but from its own webhook.
    noted = [
        request.token_expires_at - DOUBT
        for request in requests
        if request.token_expires_at is not None and request.intake != Intake.PREPARED
    ]
    newest = max([*noted, *([] if heard is None else [heard])], default=None)
    unanswered = [(_unanswered_since(request), request.state_entered_at) for request in requests]
    return KnownPrepares(
        newest=None if newest is None else newest - TOKEN_LIFETIME,
        unanswered=tuple((since, until) for since, until in unanswered if since is not None),
    )


def _unanswered_since(request: ChangeRequest) -> datetime | None:
    first = request.prepare_attempted_at if request.prepared_at is None else None
    return request.refresh_attempted_at or first


def _new_request(
    database: Database, session: Session, row: InboundEvent, token: SecretStr, now: datetime
) -> str | None:
    """A change request made of a heard prepare; ``None`` if another one took the CVM or the token this moment."""
    workspace = session.get_one(Workspace, row.workspace_id)
    request_id = database.new_id("cr")
    request = ChangeRequest(
        id=request_id,
        workspace_id=row.workspace_id,
        state=State.RECEIVED.value,
        state_entered_at=now,
        intake=Intake.WEBHOOK.value,
        cvm_id=row.vm_uuid,
        vm_uuid=row.vm_uuid,
        cvm_name=row.cvm_name,
        allow_without_approval=False,
        warnings=[],
        chain_id=row.chain_id,
        app_contract=row.app_contract,
        device_id=row.device_id,
        compose_hash=row.compose_hash,
        **tokens.columns(database, request_id, token),
        token_expires_at=row.expires_at,
        deadline_at=now + timedelta(seconds=workspace.deadline_seconds),
        due_at=func.clock_timestamp(),
        last_event_seq=0,
        last_chained_seq=0,
        created_at=now,
        updated_at=now,
    )
    try:
        with session.begin_nested():
            session.add(request)
            session.flush()
            tokens.hold(session, request_id, row.token_fingerprint)
    except IntegrityError:
        return None
    actor = Actor(ActorKind.PHALA_CLOUD, id=row.event_id, origin=row.origin)
    events.append(database, session, request, name=State.RECEIVED.value, actor=actor, now=now)
    return request_id
