"""Rows read into the immutable snapshots that steps decide on."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ScalarSelect, Select, bindparam, exists, func, or_, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from service.domain import snapshots as domain
from service.domain.alerts import Alert, AlertCode
from service.domain.calls import SafeCall
from service.domain.chain import Block, ChainFact, FactKind
from service.domain.reasons import Reason
from service.domain.signatures import SignatureKind
from service.domain.states import State
from service.store import inbound, nonces, tables
from service.store.database import Database
from service.store.membership import IS_MEMBER
from service.store.tokens import TOKEN

_OWNERS_ASKED = frozenset({State.PREPARED.value, State.PROPOSED.value})
_BEFORE_FINAL = _OWNERS_ASKED | {State.EXECUTED.value}
_MEMBER = func.json_build_array(tables.ChangeRequest.id, IS_MEMBER)


def change_request(
    database: Database, session: Session, request_id: str, *, open_token: bool = True
) -> domain.ChangeRequest:
    """A change request with what its state needs; without its token unless ``open_token``.

    Raises:
        SealingError: the token does not open.
        sqlalchemy.exc.NoResultFound: there is none.
    """
    row, undecided_prepares, *policy = session.execute(_with_workspace().params(request_id=request_id)).one()
    sealed = row.commit_token_sealed
    token = None if sealed is None or not open_token else database.sealer.open(sealed, purpose=TOKEN, row_id=row.id)
    return domain.ChangeRequest(
        id=row.id,
        workspace=_policy(row.workspace_id, *policy),
        state=State(row.state),
        state_entered_at=row.state_entered_at,
        intake=domain.Intake(row.intake),
        cvm_id=row.cvm_id,
        patch=row.patch,
        allow_without_approval=row.allow_without_approval,
        vm_uuid=row.vm_uuid,
        chain_id=row.chain_id,
        app_contract=row.app_contract,
        device_id=row.device_id,
        compose_hash=row.compose_hash,
        commit_token=token,
        token_expires_at=row.token_expires_at,
        prepare_attempted_at=row.prepare_attempted_at,
        prepared_at=row.prepared_at,
        refresh_requested_at=row.refresh_requested_at,
        refresh_attempted_at=row.refresh_attempted_at,
        refresh_due_at=row.refresh_due_at,
        refresh_attempts=row.refresh_attempts,
        token_told=row.token_told,
        deadline_told=row.deadline_told,
        other_hash_since=row.other_hash_since,
        transaction_hash=row.transaction_hash,
        evidence_block_hash=row.evidence_block_hash,
        evidence_block_number=row.evidence_block_number,
        commit_attempt_id=row.commit_attempt_id,
        commit_attempted_at=row.commit_attempted_at,
        commit_refused_since=row.commit_refused_since,
        correlation_id=row.correlation_id,
        approvals_seen=row.approvals_seen,
        warnings=tuple(row.warnings),
        cancel_requested_at=row.cancel_requested_at,
        created_at=row.created_at,
        deadline_at=row.deadline_at,
        attempts=row.attempts,
        proposal=None
        if row.proposal_id is None or row.state not in _OWNERS_ASKED
        else proposal(session, row.proposal_id),
        facts=_facts_of(session, row) if row.state in _BEFORE_FINAL else (),
        undecided_prepares=undecided_prepares,
        alerts_seen=row.alerts_seen,
    )


def workspace_policy(session: Session, workspace_id: str) -> domain.WorkspacePolicy:
    """The tenant's settings."""
    row = session.execute(select(*_policy_columns()).where(tables.Workspace.id == workspace_id)).one()
    return _policy(workspace_id, *row)


@cache
def _with_workspace() -> Select[Any]:
    request = tables.ChangeRequest
    undecided = inbound.undecided(request.workspace_id, request.vm_uuid)
    return (
        select(request, exists().where(undecided), *_policy_columns())
        .join(tables.Workspace, tables.Workspace.id == request.workspace_id)
        .where(request.id == bindparam("request_id"))
    )


def _policy_columns() -> tuple[Any, ...]:
    workspace = tables.Workspace
    return (
        workspace.allow_without_approval,
        workspace.run_deadline_seconds,
        _contracts(tables.RegisteredSafe),
        _contracts(tables.ExternalApp),
    )


def _policy(workspace_id: str, *columns: Any) -> domain.WorkspacePolicy:  # noqa: ANN401 - of any row
    allow_without_approval, run_deadline_seconds, safes, external_apps = columns
    return domain.WorkspacePolicy(
        id=workspace_id,
        allow_without_approval=allow_without_approval,
        run_deadline_seconds=run_deadline_seconds,
        safes=frozenset((chain_id, address) for chain_id, address in safes or ()),
        external_apps=frozenset((chain_id, address) for chain_id, address in external_apps or ()),
    )


def _contracts(table: type[tables.RegisteredSafe] | type[tables.ExternalApp]) -> ScalarSelect[Any]:
    each = func.json_build_array(table.chain_id, table.address)
    return select(func.json_agg(each)).where(table.workspace_id == tables.Workspace.id).scalar_subquery()


def proposal(session: Session, proposal_id: str) -> domain.Proposal:
    """A proposal with its newest approval and rejection transactions and its live members.

    Raises:
        sqlalchemy.exc.NoResultFound: there is none.
    """
    row, joined, held_nonces = session.execute(
        select(
            tables.Proposal,
            select(func.json_agg(aggregate_order_by(_MEMBER, tables.ChangeRequest.id)))
            .where(tables.ChangeRequest.proposal_id == tables.Proposal.id)
            .scalar_subquery(),
            func.array(nonces.held_by_others(tables.Proposal).scalar_subquery()),
        ).where(tables.Proposal.id == proposal_id)
    ).one()
    transactions = session.scalars(
        select(tables.SafeTransaction)
        .where(tables.SafeTransaction.proposal_id == proposal_id)
        .order_by(tables.SafeTransaction.position)
    ).all()
    return domain.Proposal(
        id=row.id,
        workspace_id=row.workspace_id,
        state=domain.ProposalState(row.state),
        chain_id=row.chain_id,
        app_contract=row.app_contract,
        compose_hash=row.compose_hash,
        devices=tuple(row.devices),
        safe=row.safe,
        transaction=_newest(transactions, domain.SafeTransactionKind.APPROVAL),
        rejection=_newest(transactions, domain.SafeTransactionKind.REJECTION),
        members=tuple(request_id for request_id, waits in joined or () if waits),
        attempts=row.attempts,
        detail=row.detail,
        alerts=tuple(Alert(AlertCode(one["code"]), one["message"]) for one in row.alerts),
        safe_seen=None if row.safe_seen is None else safe_seen(row.safe_seen),
        news_at=row.news_at,
        queue_due_at=row.queue_due_at,
        delegate_checked_at=row.delegate_checked_at,
        held_nonces=frozenset(held_nonces),
        former=tuple(request_id for request_id, waits in joined or () if not waits),
        fault=None if row.fault is None else Reason(row.fault),
    )


def safe_seen(stored: Mapping[str, Any]) -> domain.SafeSeen:
    """The Safe as it was seen last."""
    modules = stored["modules"]
    return domain.SafeSeen(
        owners=tuple(stored["owners"]),
        threshold=stored["threshold"],
        guard=stored["guard"],
        modules=None if modules is None else tuple(modules),
    )


def _newest(rows: Sequence[tables.SafeTransaction], kind: domain.SafeTransactionKind) -> domain.SafeTransaction | None:
    of_kind = [row for row in rows if row.kind == kind]
    return safe_transaction(of_kind[-1]) if of_kind else None


def safe_transaction(row: tables.SafeTransaction) -> domain.SafeTransaction:
    """One Safe transaction."""
    return domain.SafeTransaction(
        id=row.id,
        kind=domain.SafeTransactionKind(row.kind),
        state=domain.SafeTransactionState(row.state),
        safe=row.safe,
        nonce=row.nonce,
        call=SafeCall(row.to, row.data, row.operation),
        safe_tx_hash=row.safe_tx_hash,
        confirmations=tuple(row.confirmations),
        threshold=row.threshold,
        transaction_hash=row.transaction_hash,
        signature_kinds={owner: SignatureKind(kind) for owner, kind in row.signature_kinds.items()},
        contract_signatures=tuple(row.contract_signatures),
        scan_from=row.scan_from,
    )


def chain_fact(row: tables.ChainFact) -> ChainFact:
    """One log of an app contract."""
    return ChainFact(
        kind=FactKind(row.kind),
        app_contract=row.app_contract,
        value=row.value,
        transaction_hash=row.transaction_hash,
        block=Block(row.block_number, row.block_hash),
        log_index=row.log_index,
    )


def _facts_of(session: Session, row: tables.ChangeRequest) -> tuple[ChainFact, ...]:
    rows = session.scalars(
        select(tables.ChainFact)
        .where(
            tables.ChainFact.chain_id == row.chain_id,
            tables.ChainFact.app_contract == row.app_contract,
            or_(
                tables.ChainFact.value.in_([row.compose_hash, row.device_id]),
                tables.ChainFact.kind == FactKind.ANY_DEVICE_SET.value,
            ),
            tables.ChainFact.orphaned_at.is_(None),
        )
        .order_by(tables.ChainFact.block_number, tables.ChainFact.log_index)
    )
    return tuple(chain_fact(fact) for fact in rows)
