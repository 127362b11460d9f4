"""Rows read into the immutable snapshots that steps decide on."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any, Final

from sqlalchemy import ScalarSelect, Select, bindparam, case, exists, func, or_, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from service.domain import snapshots as domain
from service.domain.alerts import Alert, AlertCode
from service.domain.calls import SafeCall
from service.domain.chain import Block, ChainFact, FactKind
from service.domain.reasons import Reason
from service.domain.signatures import SignatureKind
from service.domain.states import State
from service.store import gates, inbound, nonces, tables
from service.store.columns import plain
from service.store.database import Database, Prepared, perform, unattached
from service.store.membership import IS_MEMBER
from service.store.tokens import TOKEN

_OWNERS_ASKED = frozenset({State.PREPARED.value, State.PROPOSED.value})
_BEFORE_FINAL = _OWNERS_ASKED | {State.EXECUTED.value}
FACT: Final = func.json_build_array(
    tables.ChainFact.kind,
    tables.ChainFact.app_contract,
    tables.ChainFact.value,
    tables.ChainFact.transaction_hash,
    tables.ChainFact.block_number,
    tables.ChainFact.block_hash,
    tables.ChainFact.log_index,
)
"""What to select of a chain's log, as ``chain_fact`` reads it."""
_MEMBER = func.json_build_array(tables.ChangeRequest.id, IS_MEMBER)


def change_request(
    database: Database, session: Session, request_id: str, *, open_token: bool = True
) -> domain.ChangeRequest:
    """A change request with what its state needs; without its token unless ``open_token``.

    Raises:
        SealingError: the token does not open.
        sqlalchemy.exc.NoResultFound: there is none.
    """
    rows = perform(session, _WITH_WORKSPACE, {"request_id": request_id})
    if not rows:
        raise NoResultFound(f"there is no change request {request_id}")
    (selected,) = rows
    own, (undecided_prepares, facts), policy, gated = (selected[each] for each in _PARTS)
    row = unattached(tables.ChangeRequest, own)
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
        facts=tuple(map(chain_fact, facts or ())),
        undecided_prepares=undecided_prepares,
        alerts_seen=row.alerts_seen,
        superseded_by=row.superseded_by,
        reason=None if row.reason is None else Reason(row.reason),
        gates=gates.gates_of(row, *gated),
        api_request_id=row.api_request_id,
        traceparent=row.traceparent,
    )


def workspace_policy(session: Session, workspace_id: str) -> domain.WorkspacePolicy:
    """The tenant's settings."""
    row = session.execute(select(*_policy_columns()).where(tables.Workspace.id == workspace_id)).one()
    return _policy(workspace_id, *row)


def _policy_columns() -> tuple[Any, ...]:
    workspace = tables.Workspace
    return (
        workspace.allow_without_approval,
        workspace.run_deadline_seconds,
        workspace.blocked_reason,
        _contracts(tables.RegisteredSafe),
        _contracts(tables.ExternalApp),
    )


def _policy(workspace_id: str, *columns: Any) -> domain.WorkspacePolicy:  # noqa: ANN401 - of any row
    allow_without_approval, run_deadline_seconds, blocked, safes, external_apps = columns
    return domain.WorkspacePolicy(
        id=workspace_id,
        allow_without_approval=allow_without_approval,
        run_deadline_seconds=run_deadline_seconds,
        safes=frozenset((chain_id, address) for chain_id, address in safes or ()),
        external_apps=frozenset((chain_id, address) for chain_id, address in external_apps or ()),
        blocked=blocked,
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
        alerts=alerts(row),
        safe_seen=None if row.safe_seen is None else safe_seen(row.safe_seen),
        news_at=row.news_at,
        queue_due_at=row.queue_due_at,
        delegate_checked_at=row.delegate_checked_at,
        held_nonces=frozenset(held_nonces),
        former=tuple(request_id for request_id, waits in joined or () if not waits),
        fault=None if row.fault is None else Reason(row.fault),
        approved_at_block=row.approved_at_block,
    )


def alerts(row: tables.Proposal) -> tuple[Alert, ...]:
    """What members of a proposal are or were to be told, oldest first."""
    return tuple(Alert(AlertCode(one["code"]), one["message"]) for one in row.alerts)


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


def chain_fact(stored: Sequence[Any]) -> ChainFact:
    """One log of an app contract, of what ``FACT`` selected."""
    kind, app_contract, value, transaction_hash, block_number, block_hash, log_index = stored
    block = Block(block_number, block_hash)
    return ChainFact(FactKind(kind), app_contract, value, transaction_hash, block, log_index)


def _facts() -> ScalarSelect[Any]:
    """The facts about a change request's approval, in the order of the chain."""
    request, fact = tables.ChangeRequest, tables.ChainFact
    concerns = or_(
        fact.value.in_([request.compose_hash, request.device_id]), fact.kind == FactKind.ANY_DEVICE_SET.value
    )
    of_app = (fact.chain_id == request.chain_id, fact.app_contract == request.app_contract)
    in_order = func.json_agg(aggregate_order_by(FACT, fact.block_number, fact.log_index))
    return select(in_order).where(*of_app, concerns, fact.orphaned_at.is_(None)).scalar_subquery()


def _with_workspace() -> tuple[Select[Any], list[slice]]:
    """The statement for a change request, and where in its rows its parts are: own, about it, policy, gates."""
    request = tables.ChangeRequest
    undecided = inbound.undecided(request.workspace_id, request.vm_uuid)
    before_final = request.state.in_(plain(*sorted(_BEFORE_FINAL)))
    about = (exists().where(undecided), case((before_final, _facts())))
    parts = (tuple(request.__table__.c), about, _policy_columns(), gates.columns())
    ends = list(accumulate(map(len, parts)))
    statement = (
        select(*chain.from_iterable(parts))
        .join(tables.Workspace, tables.Workspace.id == request.workspace_id)
        .where(request.id == bindparam("request_id"))
    )
    return statement, [slice(*between) for between in pairwise([0, *ends])]


_STATEMENT, _PARTS = _with_workspace()
_WITH_WORKSPACE: Final = Prepared.of(_STATEMENT)
