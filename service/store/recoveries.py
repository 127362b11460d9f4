"""Accounts at Phala Cloud that are searched for what did not arrive, and what their workspaces are told."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, delete, func, select, tuple_, union, update
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.domain.errors import LeaseLost
from service.domain.phala_facts import PendingUpdate
from service.domain.prepares import TOKEN_LIFETIME
from service.domain.recovery import ACCOUNT_ADVICE, Account, AccountAlert, AccountTrouble, Asked, Recovery
from service.domain.states import State
from service.store import acts, leases
from service.store.database import Database
from service.store.leases import Lease, due_again, given_back, held
from service.store.tables import ChangeRequest, InboundEvent, MissedEvent, PhalaRecovery, Workspace, WorkspaceAlert

APPS_PER_LOOK: Final = 10
_RECOVERING: Final = "recover"
_KEPT: Final = TOKEN_LIFETIME + timedelta(days=1)
_TAKES_WEBHOOKS: Final = func.cardinality(Workspace.phala_webhook_secrets_sealed) > 0


def _begin() -> Insert:
    """A row that is due for each workspace that takes webhooks and has none."""
    now = func.clock_timestamp()
    of_workspace = PhalaRecovery.workspace_id == Workspace.id
    waiting = (
        select(Workspace.id, now)
        .outerjoin(PhalaRecovery, of_workspace)
        .where(_TAKES_WEBHOOKS, PhalaRecovery.due_at.is_(None))
    )
    return (
        insert(PhalaRecovery)
        .from_select(["workspace_id", "due_at"], waiting)
        .on_conflict_do_update(
            index_elements=["workspace_id"],
            set_={"due_at": now, "rung_at": None},
            where=PhalaRecovery.due_at.is_(None),
        )
    )


_BEGIN: Final = _begin()


def ring_due(database: Database, limit: int) -> list[str]:
    """Accounts that are due and not held, see ``leases.ring_due``; those whose webhooks are taken since lately too."""
    with database.transaction() as session:
        session.execute(_BEGIN)
    return [workspace_id for workspace_id, _ in leases.ring_due(database, PhalaRecovery, limit)]


def account(database: Database, lease: Lease) -> Account | None:
    """The account of a leased row, with the apps whose turn it is; ``None`` if its webhooks are not taken any more."""
    with database.reads() as session:
        row = session.get_one(PhalaRecovery, lease.row_id)
        taken = select(Workspace.slug).where(Workspace.id == row.workspace_id, _TAKES_WEBHOOKS)
        slug = session.scalars(taken).one_or_none()
        if slug is None:
            return None
        apps = session.scalars(_apps(row.workspace_id, row.last_app)).all()
    path = f"/v1/hooks/phala/{slug}"
    return Account(f"{database.public_url}{path}", path, row.settled_to, tuple(apps))


def _apps(workspace_id: str, after: str | None) -> Select[Any]:
    """The next apps of which anything was ever heard here, in an order of their own."""
    known = union(
        *(
            select(table.app_contract.label("app_contract")).where(
                table.workspace_id == workspace_id, table.app_contract > (after or "")
            )
            for table in (ChangeRequest, InboundEvent)
        )
    ).subquery()
    return select(known.c.app_contract).order_by(known.c.app_contract).limit(APPS_PER_LOOK)


class StoredRecoveryIntents:
    """``RecoveryIntents`` of a leased account."""

    def __init__(self, database: Database, lease: Lease) -> None:
        """Take the database and the lease."""
        self._database = database
        self._lease = lease
        self._workspace_id = str(lease.row_id)

    def heard(self, event_ids: Sequence[str]) -> Collection[str]:
        """Those of the events that arrived."""
        statement = select(InboundEvent.event_id).where(
            InboundEvent.workspace_id == self._workspace_id, InboundEvent.event_id.in_(event_ids)
        )
        with self._database.reads() as session:
            return frozenset(session.scalars(statement))

    def asked(self) -> Mapping[str, Asked]:
        """What was asked for already, by the id it was sent with first."""
        statement = select(MissedEvent).where(MissedEvent.workspace_id == self._workspace_id)
        with self._database.reads() as session:
            return {row.event_id: Asked(row.asks, row.asked_at) for row in session.scalars(statement)}

    def asking(self, event_id: str, now: datetime) -> None:
        """Store that an event is asked for, before it is.

        Raises:
            LeaseLost: another worker took over; nothing may be asked for.
        """
        statement = insert(MissedEvent).values(workspace_id=self._workspace_id, event_id=event_id, asks=1, asked_at=now)
        with self._database.transaction() as session:
            if session.scalar(select(PhalaRecovery.fence).where(held(self._lease)).with_for_update()) is None:
                raise LeaseLost("another worker searches this account")
            session.execute(
                statement.on_conflict_do_update(
                    index_elements=["workspace_id", "event_id"], set_={"asks": MissedEvent.asks + 1, "asked_at": now}
                )
            )

    def unknown(self, updates: Sequence[PendingUpdate]) -> Sequence[PendingUpdate]:
        """Those that no change request and no heard prepare is about, nor perhaps a prepare of ours under way."""
        if not updates:
            return ()
        pairs = [(update.vm_uuid, update.compose_hash) for update in updates]
        under_way = and_(ChangeRequest.state == State.RECEIVED.value, ChangeRequest.prepare_attempted_at.is_not(None))
        with self._database.reads() as session:
            of_requests = session.execute(
                select(ChangeRequest.vm_uuid, ChangeRequest.compose_hash, under_way).where(
                    ChangeRequest.workspace_id == self._workspace_id,
                    tuple_(ChangeRequest.vm_uuid, ChangeRequest.compose_hash).in_(pairs)
                    | and_(ChangeRequest.vm_uuid.in_([vm_uuid for vm_uuid, _ in pairs]), under_way),
                )
            ).all()
            of_prepares = session.execute(
                select(InboundEvent.vm_uuid, InboundEvent.compose_hash).where(
                    InboundEvent.workspace_id == self._workspace_id,
                    tuple_(InboundEvent.vm_uuid, InboundEvent.compose_hash).in_(pairs),
                )
            ).all()
        known = {(row.vm_uuid, row.compose_hash) for row in (*of_requests, *of_prepares)}
        busy = {row.vm_uuid for row in of_requests if row[2]}
        return [one for one, pair in zip(updates, pairs, strict=True) if pair not in known and one.vm_uuid not in busy]


def apply(database: Database, lease: Lease, found: Recovery, *, wait_seconds: float, now: datetime) -> None:
    """Store what a look found, tell what is new and wrong, and give the lease back.

    Raises:
        LeaseLost: another worker took over; nothing was written.
    """
    workspace_id = str(lease.row_id)
    # Fewer apps than there is room for were the last ones: the next look begins anew.
    last_app = found.apps[-1] if len(found.apps) == APPS_PER_LOOK or (found.fault and found.apps) else None
    values: dict[str, Any] = {"last_app": last_app, "looked_at": now}
    if found.settled_to is not None:
        values["settled_to"] = found.settled_to
    failed = found.fault is not None
    values["detail"] = None if found.fault is None else found.fault.detail
    values["attempts"] = PhalaRecovery.attempts + 1 if failed else 0
    with database.transaction() as session:
        _give_back(session, lease, wait_seconds, values)
        _forget(session, workspace_id, now)
        _clear(session, workspace_id, found)
        news = [
            _told(workspace_id, trouble) for trouble in found.troubles if _is_news(session, workspace_id, trouble, now)
        ]
        if news:
            acts.append_alerts(database, session, workspace_id, news, actor=Actor.system(_RECOVERING), now=now)


def rest(database: Database, lease: Lease) -> None:
    """Give the lease back for good: this account's webhooks are not taken any more.

    Raises:
        LeaseLost: another worker took over; nothing was written.
    """
    with database.transaction() as session:
        _give_back(session, lease, None, {})
        session.execute(delete(WorkspaceAlert).where(WorkspaceAlert.workspace_id == str(lease.row_id)))


def fail(database: Database, lease: Lease, *, detail: str, wait_seconds: float) -> None:
    """Give the lease back after a look that failed, with the reason.

    Raises:
        LeaseLost: another worker took over; nothing was written.
    """
    with database.transaction() as session:
        _give_back(session, lease, wait_seconds, {"detail": detail, "attempts": PhalaRecovery.attempts + 1})


def _give_back(session: Session, lease: Lease, wait_seconds: float | None, values: Mapping[str, Any]) -> None:
    due = None if wait_seconds is None else due_again(lease, wait_seconds)
    statement = update(PhalaRecovery).where(held(lease)).values(**values, **given_back(due))
    if session.scalar(statement.returning(PhalaRecovery.workspace_id)) is None:
        raise LeaseLost("another worker searches this account")


def _forget(session: Session, workspace_id: str, now: datetime) -> None:
    too_old = MissedEvent.asked_at < now - _KEPT
    session.execute(delete(MissedEvent).where(MissedEvent.workspace_id == workspace_id, too_old))


def _clear(session: Session, workspace_id: str, found: Recovery) -> None:
    """Forget alerts of what was looked for and does not hold any more: it is told again if it comes back."""
    holding = [(trouble.code.value, trouble.subject) for trouble in found.troubles]
    whole = [code.value for code in found.looked_for if code is not AccountAlert.UNKNOWN_UPDATE]
    looked_for: ColumnElement[bool] = WorkspaceAlert.code.in_(whole) | and_(
        WorkspaceAlert.code == AccountAlert.UNKNOWN_UPDATE.value, WorkspaceAlert.app_contract.in_(found.apps)
    )
    session.execute(
        delete(WorkspaceAlert).where(
            WorkspaceAlert.workspace_id == workspace_id,
            looked_for,
            tuple_(WorkspaceAlert.code, WorkspaceAlert.subject).not_in(holding),
        )
    )


def _is_news(session: Session, workspace_id: str, trouble: AccountTrouble, now: datetime) -> bool:
    """Remember a trouble; whether it is to be told: once, when it has held long enough."""
    key = {"workspace_id": workspace_id, "code": trouble.code.value, "subject": trouble.subject}
    values = {**key, "app_contract": trouble.app_contract, "message": trouble.message, "seen_at": now}
    session.execute(insert(WorkspaceAlert).values(values).on_conflict_do_nothing())
    statement = (
        update(WorkspaceAlert)
        .where(
            WorkspaceAlert.workspace_id == workspace_id,
            WorkspaceAlert.code == trouble.code.value,
            WorkspaceAlert.subject == trouble.subject,
            WorkspaceAlert.raised_at.is_(None),
            WorkspaceAlert.seen_at <= now - trouble.patience,
        )
        .values(raised_at=now)
        .returning(WorkspaceAlert.code)
    )
    return session.scalar(statement) is not None


def _told(workspace_id: str, trouble: AccountTrouble) -> dict[str, object]:
    told = {"code": trouble.code.value, "message": trouble.message, "advice": ACCOUNT_ADVICE[trouble.code]}
    return {"workspace": {"id": workspace_id}, "alert": told, "app_contract": trouble.app_contract}
