"""Rows as the API shows them. Nothing secret is read here: tokens and patch contents stay where they are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from service.api import links, schemas
from service.domain import calls
from service.domain.alerts import ALERT_ADVICE, AlertCode
from service.domain.reasons import ADVICE, Reason
from service.domain.signatures import SignatureKind
from service.domain.snapshots import Intake, ProposalState, SafeTransactionKind, SafeTransactionState
from service.domain.states import MEANINGS, TERMINAL, State
from service.store.requests import Approval
from service.store.tables import ChangeRequest, Event, Proposal, SafeTransaction
from service.wiring import ChainLinks

_OWNER_ACTS = "{} makes these calls, in this order; however it comes about, the approval counts once it is on chain."
_SOMEBODY = "Whoever may change the app contract's allowlist"
_SIGNATURES_STAY = "Signatures already given to the approval stay usable until this transaction executes."


@dataclass(frozen=True, slots=True)
class Representer:
    """Shows the rows of one workspace.

    Attributes:
        workspace: its slug.
        chains: what links are made of, by chain id.
        public_url: base of the API's links, may be empty.
    """

    workspace: str
    chains: Mapping[int, ChainLinks]
    public_url: str

    def change_request(self, row: ChangeRequest, approval: Approval | None) -> schemas.ChangeRequestOut:
        """A change request with the approval it waits or waited for."""
        state = State(row.state)
        return schemas.ChangeRequestOut(
            id=row.id,
            workspace=self.workspace,
            state=state,
            state_meaning=MEANINGS[state],
            title=row.title,
            intake=Intake(row.intake),
            cvm=schemas.Cvm(id=row.cvm_id, vm_uuid=row.vm_uuid, name=row.cvm_name),
            chain=self._chain(row.chain_id),
            app_contract=row.app_contract,
            app_contract_eip3770=links.eip3770(self._links_of(row.chain_id), row.app_contract),
            app_contract_explorer_url=links.explorer_address(self._links_of(row.chain_id), row.app_contract),
            device_id=row.device_id,
            compose_hash=row.compose_hash,
            patch=None if row.patch is None else sorted(row.patch),
            allow_without_approval=row.allow_without_approval,
            approval=None if approval is None else self._approval(approval),
            execution=self._execution(row),
            commit=_commit(row),
            running_evidence=row.running_evidence,
            reason=_reason(row.reason, row.detail),
            next=None if state in TERMINAL else _next(row),
            warnings=row.warnings,
            cancel_requested_at=row.cancel_requested_at,
            deadline_at=row.deadline_at,
            token_expires_at=row.token_expires_at,
            token_refresh=_token_refresh(row),
            created_at=row.created_at,
            updated_at=row.updated_at,
            state_entered_at=row.state_entered_at,
            prepared_at=row.prepared_at,
            links=self._links(row.id),
        )

    def url(self, request_id: str) -> str:
        """Where a change request is read."""
        return f"{self.public_url}/v1/change-requests/{request_id}"

    def _links(self, request_id: str) -> schemas.ChangeRequestLinks:
        url = self.url(request_id)
        return schemas.ChangeRequestLinks(
            self=url, events=f"{url}/events", cancel=f"{url}/cancel", refresh=f"{url}/refresh"
        )

    def _chain(self, chain_id: int | None) -> schemas.Chain | None:
        if chain_id is None:
            return None
        known = self._links_of(chain_id)
        return schemas.Chain(id=chain_id, name=known.name if known else None)

    def _links_of(self, chain_id: int | None) -> ChainLinks | None:
        return None if chain_id is None else self.chains.get(chain_id)

    def _execution(self, row: ChangeRequest) -> schemas.Execution | None:
        if row.evidence_block_hash is None:
            return None
        return schemas.Execution(
            transaction_hash=row.transaction_hash,
            block_number=row.evidence_block_number,
            block_hash=row.evidence_block_hash,
            explorer_url=links.explorer_transaction(self._links_of(row.chain_id), row.transaction_hash),
        )

    def _approval(self, approval: Approval) -> schemas.SafeApproval | schemas.ExternalApproval:
        proposal = approval.proposal
        needed = _calls(proposal.app_contract, proposal.compose_hash, tuple(proposal.devices))
        chain = self._links_of(proposal.chain_id)
        if proposal.safe is None:
            owner = None if proposal.approver is None else proposal.approver["owner"]
            return schemas.ExternalApproval(
                kind="external",
                state=ProposalState(proposal.state),
                owner=owner,
                owner_eip3770=links.eip3770(chain, owner),
                owner_explorer_url=links.explorer_address(chain, owner),
                note=_OWNER_ACTS.format(f"The owner of the app contract, {owner}," if owner else _SOMEBODY),
                target=proposal.app_contract,
                calldata=needed[0].calldata if len(needed) == 1 else None,
                calls=needed,
                devices=proposal.devices,
                detail=proposal.detail,
            )
        row = approval.newest
        return schemas.SafeApproval(
            kind="safe",
            state=ProposalState(proposal.state),
            safe=proposal.safe,
            safe_eip3770=links.eip3770(chain, proposal.safe),
            safe_facts=_safe_facts(proposal, chain),
            nonce=row.nonce if row else None,
            safe_tx_hash=row.safe_tx_hash if row else None,
            target=row.to if row else None,
            calldata=row.data if row else None,
            operation=row.operation if row else None,
            calls=needed,
            devices=proposal.devices,
            **_signatures(proposal, row),
            alerts=_alerts(proposal),
            rejection=_rejection(approval.transactions),
            detail=proposal.detail,
            links=schemas.SafeLinks(
                safe_app_queue=links.safe_app_queue(chain, proposal.safe),
                safe_app_transaction=links.safe_app_transaction(
                    chain, proposal.safe, row.safe_tx_hash if row else None
                ),
                safe_explorer=links.explorer_address(chain, proposal.safe),
            ),
        )


class _Signatures(TypedDict):
    confirmations: list[str]
    signatures: list[schemas.OwnerSignature]
    contract_signatures: list[str]
    missing: list[str]
    threshold: int | None
    ready: bool


def _signatures(proposal: Proposal, row: SafeTransaction | None) -> _Signatures:
    confirmations = row.confirmations if row else []
    kinds = row.signature_kinds if row else {}
    contracts = row.contract_signatures if row else []
    threshold = row.threshold if row else None
    owners = proposal.safe_seen["owners"] if proposal.safe_seen else []
    return _Signatures(
        confirmations=confirmations,
        signatures=[
            schemas.OwnerSignature(owner=owner, kind=SignatureKind(kinds[owner]))
            for owner in confirmations
            if owner in kinds
        ],
        contract_signatures=contracts,
        missing=[owner for owner in owners if owner not in confirmations and owner not in contracts],
        threshold=threshold,
        ready=(
            row is not None
            and row.state == SafeTransactionState.QUEUED
            and threshold is not None
            and len(confirmations) >= threshold
        ),
    )


def _alerts(proposal: Proposal) -> list[schemas.AlertOut]:
    return [
        schemas.AlertOut(code=code, message=one["message"], advice=ALERT_ADVICE[code])
        for one in proposal.alerts
        for code in (AlertCode(one["code"]),)
    ]


def event(row: Event) -> schemas.EventOut:
    """An event; its ``data`` is exactly what webhooks carry."""
    body = json.loads(row.body)
    return schemas.EventOut(
        id=row.id,
        seq=row.seq,
        type=row.type,
        state=State(str(row.state)),  # the database holds events of change requests to one
        timestamp=body["timestamp"],
        data=body["data"],
        actor=actor(row),
        previous_hash=row.previous_hash,
        hash=row.hash,
    )


def actor(row: Event) -> schemas.ActorOut | None:
    """Who an event is by."""
    return None if row.actor is None else schemas.ActorOut(**row.actor)


def _calls(app_contract: str, compose_hash: str, devices: tuple[str, ...]) -> list[schemas.Call]:
    functions = ["addDevice(bytes32)"] * len(devices) + ["addComposeHash(bytes32)"]
    arguments = [*devices, compose_hash]
    return [
        schemas.Call(to=app_contract, function=function, argument=argument, calldata=calldata)
        for function, argument, calldata in zip(
            functions, arguments, calls.inner_calls(compose_hash, devices), strict=True
        )
    ]


def _rejection(transactions: Sequence[SafeTransaction]) -> schemas.Rejection | None:
    rows = [row for row in transactions if row.kind == SafeTransactionKind.REJECTION]
    if not rows:
        return None
    state = SafeTransactionState(rows[-1].state)
    return schemas.Rejection(
        nonce=rows[-1].nonce, safe_tx_hash=rows[-1].safe_tx_hash, state=state, note=_SIGNATURES_STAY
    )


def _safe_facts(proposal: Proposal, chain: ChainLinks | None) -> schemas.SafeFacts | None:
    facts = None if proposal.approver is None else proposal.approver["safe"]
    if facts is None:
        return None
    owners = [f"{chain.name}:{owner}" for owner in facts["owners"]] if chain else None
    # A row may have been written by a version that knew more.
    shown = {name: facts[name] for name in schemas.SafeFacts.model_fields if name in facts}
    return schemas.SafeFacts(**shown, owners_eip3770=owners)


def _commit(row: ChangeRequest) -> schemas.Commit | None:
    if row.commit_attempted_at is None and row.correlation_id is None:
        return None
    return schemas.Commit(attempted_at=row.commit_attempted_at, correlation_id=row.correlation_id)


def _reason(code: str | None, detail: str | None) -> schemas.ReasonOut | None:
    if code is None:
        return None
    reason = Reason(code)
    return schemas.ReasonOut(code=reason, advice=ADVICE[reason], detail=detail)


def _token_refresh(row: ChangeRequest) -> schemas.TokenRefresh:
    return schemas.TokenRefresh(
        by_service=row.patch is not None,
        requested_at=row.refresh_requested_at,
        attempts=row.refresh_attempts,
        next_attempt_at=row.refresh_due_at,
        reason=_reason(row.refresh_reason, row.refresh_detail),
    )


def _next(row: ChangeRequest) -> schemas.Next:
    return schemas.Next(
        due_at=row.due_at, attempts=row.attempts, waiting_for=None if row.reason is None else Reason(row.reason)
    )
