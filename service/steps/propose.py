"""``prepared``: find the approval on chain, or have it proposed to the Safe's owners."""

from collections.abc import Mapping
from typing import Final

from service.domain.approver import Approver
from service.domain.chain import ChainView
from service.domain.errors import Refused
from service.domain.outcomes import Advance, Facts, Outcome, Wait
from service.domain.reasons import Reason
from service.domain.snapshots import JOINABLE_PROPOSAL, ChangeRequest, Proposal, ProposalState
from service.domain.states import State
from service.ports import Chain, Clock, RequestIntents, SafeQueue, Signer
from service.steps.approval import Evidence, NeededApproval, chain_of, needed_approval, sight
from service.steps.ends import ending, ends_on_refusal
from service.steps.preflight import app_of, preflight, warn

_POSTING_SECONDS: Final = 10.0
"""A look without being rung for: a proposal rings when it is posted, one that is being withdrawn does not."""


@ends_on_refusal
def propose(
    request: ChangeRequest,
    *,
    chains: Mapping[int, Chain],
    queues: Mapping[int, SafeQueue],
    signer: Signer,
    intents: RequestIntents,
    clock: Clock,
) -> Outcome:
    """Serve a request in ``prepared``.

    Raises:
        CountersignError: a retryable fault, or ``LeaseLost``.
    """
    end = ending(request, clock.now())
    if end is not None:
        return end
    needed = needed_approval(request)
    chain = chain_of(chains, needed.chain_id)
    view = chain.view()
    if needed.read(chain, view.final).both:
        return Advance(State.REGISTERED, Evidence(view.final, None).facts(), allowed_at=view.final.number)
    sighting = sight(request, needed, chain, view)
    if sighting.evidence is not None:
        return Advance(State.EXECUTED, sighting.evidence.facts())
    devices = () if sighting.allowed.device else (needed.device_id,)
    joined = request.proposal
    if joined is None or not _serves(joined, devices):
        approver = _preflight(request, needed, devices, chain, queues, signer, view)
        warn(request, approver, chain, intents)
        safe = None if approver.safe is None else approver.safe.address
        joined = intents.join_proposal(devices, safe, approver)
    return _by_proposal(joined)


def _serves(proposal: Proposal, devices: tuple[str, ...]) -> bool:
    if proposal.state in JOINABLE_PROPOSAL:
        return set(devices) <= set(proposal.devices)
    return proposal.state in (ProposalState.FAILED, ProposalState.REJECTED)


def _preflight(
    request: ChangeRequest,
    needed: NeededApproval,
    devices: tuple[str, ...],
    chain: Chain,
    queues: Mapping[int, SafeQueue],
    signer: Signer,
    view: ChainView,
) -> Approver:
    return preflight(
        request.workspace,
        needed.app_contract,
        app_of(needed.app_contract, chain, view.head),
        needed.compose_hash,
        devices,
        chain=chain,
        queue=queues[needed.chain_id],
        proposer=signer.address,
        at=view.head,
    )


def _by_proposal(proposal: Proposal) -> Outcome:
    match proposal.state:
        case ProposalState.QUEUED | ProposalState.EXTERNAL | ProposalState.REJECTED:
            # A rejection ends the request in ``proposed``, like every word of the owners.
            return Advance(State.PROPOSED, Facts(approvals_seen=0))
        case ProposalState.FAILED:
            raise Refused(proposal.detail or "the proposal failed", reason=Reason.PROPOSAL_REFUSED)
        case _:
            return Wait(_POSTING_SECONDS, proposal.fault or Reason.WAITING_FOR_PROPOSAL, proposal.detail)
