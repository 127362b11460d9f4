"""Rows as the API shows them. Nothing secret is read here: tokens and patch contents stay where they are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.api import schemas
from service.domain import calls
from service.domain.reasons import ADVICE, Reason
from service.domain.snapshots import Intake, ProposalState, SafeTransactionKind, SafeTransactionState
from service.domain.states import MEANINGS, TERMINAL, State
from service.store.requests import Approval
from service.store.tables import ChangeRequest, Event, SafeTransaction
from service.wiring import ChainLinks

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
            device_id=row.device_id,
            compose_hash=row.compose_hash,
            patch=None if row.patch is None else sorted(row.patch),
            allow_without_approval=row.allow_without_approval,
            approval=None if approval is None else self._approval(approval),
            execution=self._execution(row),
            commit=_commit(row),
            running_evidence=row.running_evidence,
            reason=_reason(row),
            next=None if state in TERMINAL else _next(row),
            warnings=row.warnings,
            cancel_requested_at=row.cancel_requested_at,
            deadline_at=row.deadline_at,
            token_expires_at=row.token_expires_at,
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
        return schemas.ChangeRequestLinks(self=url, events=f"{url}/events", cancel=f"{url}/cancel")

    def _chain(self, chain_id: int | None) -> schemas.Chain | None:
        if chain_id is None:
            return None
        links = self.chains.get(chain_id)
        return schemas.Chain(id=chain_id, name=links.name if links else None)

    def _execution(self, row: ChangeRequest) -> schemas.Execution | None:
        if row.evidence_block_hash is None:
            return None
        links = self.chains.get(row.chain_id) if row.chain_id is not None else None
        url = None
        if links and links.explorer_url and row.transaction_hash:
            url = f"{links.explorer_url.rstrip('/')}/tx/{row.transaction_hash}"
        return schemas.Execution(
            transaction_hash=row.transaction_hash,
            block_number=row.evidence_block_number,
            block_hash=row.evidence_block_hash,
            explorer_url=url,
        )

    def _approval(self, approval: Approval) -> schemas.SafeApproval | schemas.ExternalApproval:
        proposal = approval.proposal
        needed = _calls(proposal.app_contract, proposal.compose_hash, tuple(proposal.devices))
        if proposal.safe is None:
            return schemas.ExternalApproval(
                kind="external",
                state=ProposalState(proposal.state),
                target=proposal.app_contract,
                calldata=needed[0].calldata if len(needed) == 1 else None,
                calls=needed,
                devices=proposal.devices,
                detail=proposal.detail,
            )
        row = approval.newest
        chain = self.chains.get(proposal.chain_id)
        eip3770 = f"{chain.name}:{proposal.safe}" if chain else None
        return schemas.SafeApproval(
            kind="safe",
            state=ProposalState(proposal.state),
            safe=proposal.safe,
            safe_eip3770=eip3770,
            nonce=row.nonce if row else None,
            safe_tx_hash=row.safe_tx_hash if row else None,
            target=row.to if row else None,
            calldata=row.data if row else None,
            operation=row.operation if row else None,
            calls=needed,
            devices=proposal.devices,
            confirmations=row.confirmations if row else [],
            threshold=row.threshold if row else None,
            rejection=_rejection(approval.transactions),
            detail=proposal.detail,
            links=_safe_links(chain, eip3770, proposal.safe, row),
        )


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
    )


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


def _safe_links(
    chain: ChainLinks | None, eip3770: str | None, safe: str, row: SafeTransaction | None
) -> schemas.SafeLinks:
    if chain is None:
        return schemas.SafeLinks(safe_app_queue=None, safe_app_transaction=None)
    base = f"{chain.safe_app_url.rstrip('/')}/transactions"
    return schemas.SafeLinks(
        safe_app_queue=f"{base}/queue?safe={eip3770}",
        safe_app_transaction=f"{base}/tx?safe={eip3770}&id=multisig_{safe}_{row.safe_tx_hash}" if row else None,
    )


def _commit(row: ChangeRequest) -> schemas.Commit | None:
    if row.commit_attempted_at is None and row.correlation_id is None:
        return None
    return schemas.Commit(attempted_at=row.commit_attempted_at, correlation_id=row.correlation_id)


def _reason(row: ChangeRequest) -> schemas.ReasonOut | None:
    if row.reason is None:
        return None
    code = Reason(row.reason)
    return schemas.ReasonOut(code=code, advice=ADVICE[code], detail=row.detail)


def _next(row: ChangeRequest) -> schemas.Next:
    return schemas.Next(
        due_at=row.due_at, attempts=row.attempts, waiting_for=None if row.reason is None else Reason(row.reason)
    )
