"""``proposed`` and ``executed``: wait for the owners, then for finality. The chain decides, the queue informs."""

from collections.abc import Mapping
from typing import Final

from service.domain.alerts import ALERT_ADVICE, Alert
from service.domain.chain import Block
from service.domain.errors import Refused
from service.domain.outcomes import Advance, Facts, Notice, Outcome, Wait, stop
from service.domain.reasons import Reason
from service.domain.snapshots import ChangeRequest, Proposal, ProposalState, SafeTransaction
from service.domain.states import State
from service.ports import Chain, Clock
from service.steps.approval import (
    NO_EVIDENCE,
    Evidence,
    added_above,
    canonical_evidence,
    chain_of,
    is_canonical,
    needed_approval,
    sight,
)
from service.steps.ends import ending, ends_on_refusal

_BEHIND_SECONDS: Final = 5.0


@ends_on_refusal
def await_approval(
    request: ChangeRequest, *, chains: Mapping[int, Chain], clock: Clock, recheck_seconds: float
) -> Outcome:
    """Serve a request in ``proposed`` or ``executed``.

    Args:
        request: the snapshot.
        chains: configured chains by id.
        clock: the time.
        recheck_seconds: when to look again unless a doorbell rings earlier.

    Raises:
        CountersignError: a retryable fault.
    """
    end = ending(request, clock.now())
    if end is not None:
        return end
    chain = chain_of(chains, needed_approval(request).chain_id)
    if request.state is State.EXECUTED:
        return _await_finality(request, chain, recheck_seconds)
    return _await_owners(request, chain, recheck_seconds)


def _await_owners(request: ChangeRequest, chain: Chain, recheck_seconds: float) -> Outcome:
    view = chain.view()
    evidence = sight(request, needed_approval(request), chain, view).evidence
    if evidence is not None:
        return Advance(State.EXECUTED, evidence.facts())
    newest = max((fact.block for fact in request.facts), key=lambda block: block.number, default=None)
    if newest is not None and newest.number > view.final.number and not is_canonical(chain, newest):
        # The news this request was rung for is in a block that this node does not have: not yet, or not now. A block
        # that vanishes and returns between two looks at the chain is no news: nobody would ring again.
        recheck_seconds = min(recheck_seconds, _BEHIND_SECONDS)
    proposal = request.proposal
    if proposal is not None and proposal.state is ProposalState.APPROVED:
        return _after_approval(request, proposal, chain, view.final, newest, recheck_seconds)
    if proposal is not None and proposal.state is ProposalState.REJECTED:
        return stop(State.REJECTED, Reason.REJECTED_BY_OWNERS, proposal.detail)
    if proposal is not None and proposal.state is ProposalState.FAILED:
        raise Refused(proposal.detail or "the proposal failed", reason=Reason.PROPOSAL_REFUSED)
    if proposal is not None and proposal.state is ProposalState.EXTERNAL:
        return Wait(recheck_seconds, Reason.WAITING_FOR_EXTERNAL_APPROVAL)
    if proposal is not None:
        return _report(request, proposal, recheck_seconds)
    return Wait(recheck_seconds, Reason.WAITING_FOR_OWNERS)


def _after_approval(
    request: ChangeRequest, proposal: Proposal, chain: Chain, final: Block, newest: Block | None, recheck_seconds: float
) -> Outcome:
    """The approval was final for another request of the proposal, and is not to be seen for this one.

    A node that is not behind the block where it was read, or behind its last fact, says whether it is there still.
    """
    read_at = proposal.approved_at_block
    reached = read_at is not None and read_at <= final.number
    known = newest is not None and newest.number <= final.number
    if (reached or known) and not needed_approval(request).read(chain, final).both:
        raise Refused(f"not allowed at the final block {final.number}", reason=Reason.APPROVAL_WITHDRAWN)
    return Wait(recheck_seconds, Reason.WAITING_FOR_FINALITY)


def _report(request: ChangeRequest, proposal: Proposal, recheck_seconds: float) -> Wait:
    """Tell what is new about the proposal: its alerts, and who signed."""
    facts = Facts()
    notices: list[tuple[Notice, Mapping[str, object]]] = []
    if len(proposal.alerts) > request.alerts_seen:
        facts["alerts_seen"] = len(proposal.alerts)
        notices += [(Notice.ALERT, _told(alert)) for alert in proposal.alerts[request.alerts_seen :]]
    if proposal.transaction is not None:
        _report_approvals(request, proposal, proposal.transaction, facts, notices)
    return Wait(recheck_seconds, Reason.WAITING_FOR_OWNERS, facts=facts, notices=tuple(notices))


def _told(alert: Alert) -> dict[str, object]:
    return {"code": alert.code.value, "message": alert.message, "advice": ALERT_ADVICE[alert.code]}


def _report_approvals(
    request: ChangeRequest,
    proposal: Proposal,
    transaction: SafeTransaction,
    facts: Facts,
    notices: list[tuple[Notice, Mapping[str, object]]],
) -> None:
    seen, count = request.approvals_seen, len(transaction.confirmations)
    if count == seen:
        return
    # A count that fell (an owner was removed) is stored too: its next rise is news again.
    facts["approvals_seen"] = count
    owners = proposal.safe_seen.owners if proposal.safe_seen else ()
    data = {
        "approvals": count,
        "threshold": transaction.threshold,
        "owners": list(transaction.confirmations),
        "missing": [owner for owner in owners if owner not in transaction.confirmations],
    }
    if count > seen:
        notices.append((Notice.APPROVAL_ADDED, data))
    if transaction.threshold is not None and seen < transaction.threshold <= count:
        notices.append((Notice.THRESHOLD_REACHED, data))


def _await_finality(request: ChangeRequest, chain: Chain, recheck_seconds: float) -> Outcome:
    evidence = _stored_evidence(request)
    view = chain.view(also=evidence.number)
    canonical = view.also or chain.block(evidence.number)
    if canonical is not None and canonical != evidence:
        return _after_reorg(request, chain, evidence)
    if canonical is None or evidence.number > view.final.number:
        # A block above this node's head is not seen, which is no proof that it vanished.
        return Wait(recheck_seconds, Reason.WAITING_FOR_FINALITY)
    needed = needed_approval(request)
    if needed.read(chain, view.final).both:
        return Advance(State.REGISTERED, allowed_at=view.final.number)
    if needed.read(chain, view.head).both:
        # The device came later than the hash, or either was taken away and given again.
        later = Facts(evidence_block_hash=view.head.hash, evidence_block_number=view.head.number)
        return Wait(recheck_seconds, Reason.WAITING_FOR_FINALITY, "allowed since a block that is not final", later)
    if added_above(request, needed, chain, view.final):
        # The node that tells the head may be behind the block that completed the approval.
        return Wait(recheck_seconds, Reason.WAITING_FOR_FINALITY, "what was added last is not final")
    raise Refused(f"not allowed at the final block {view.final.number}", reason=Reason.APPROVAL_WITHDRAWN)


def _stored_evidence(request: ChangeRequest) -> Block:
    if request.evidence_block_hash is None or request.evidence_block_number is None:
        raise ValueError(f"change request {request.id} is executed without an evidence block")
    return Block(request.evidence_block_number, request.evidence_block_hash)


def _after_reorg(request: ChangeRequest, chain: Chain, vanished: Block) -> Outcome:
    other: Evidence | None = canonical_evidence(request, needed_approval(request), chain)
    if other is not None:
        detail = f"block {vanished.number} vanished in a reorg, the approval is in block {other.block.number} now"
        return Wait(0.0, Reason.WAITING_FOR_FINALITY, detail, other.facts())
    data = {"block_number": vanished.number, "block_hash": vanished.hash, "transaction_hash": request.transaction_hash}
    return Advance(
        State.PREPARED,
        NO_EVIDENCE,
        detail=f"block {vanished.number} vanished in a reorg",
        notices=((Notice.REORGED, data),),
    )
