"""What is told of steps: how they ended, what changed with it, and for whom they were taken."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from service.domain.errors import LeaseLost
from service.domain.outcomes import Outcome, ProposalOutcome, Wait
from service.domain.reasons import Reason
from service.domain.snapshots import ChangeRequest, Proposal, ProposalState
from service.domain.states import TERMINAL, State
from service.telemetry import metrics, work
from service.telemetry.work import Step
from workers.verbs import Verb

ADVANCED: Final = "advanced"
WAITING: Final = "waiting"
FAILED: Final = "failed"
ERROR: Final = "error"
ENDED: Final = "ended"
TAKEN_OVER: Final = "taken_over"
_ENDED_PROPOSAL: Final = frozenset({ProposalState.REJECTED, ProposalState.WITHDRAWN, ProposalState.FAILED})


@contextmanager
def of_request(request: ChangeRequest, verb: Verb) -> Iterator[Callable[[Outcome], State]]:
    """Around a step of a change request; gives who is told its stored outcome, and says the state afterwards."""
    with (
        work.step(
            verb,
            caused_by=request.traceparent,
            request_id=request.api_request_id,
            change_request_id=request.id,
            workspace_id=request.workspace.id,
            chain_id=request.chain_id,
        ) as step,
        _taken_over(step, "change_request"),
    ):

        def told(outcome: Outcome) -> State:
            step.outcome = _name(outcome)
            if isinstance(outcome, Wait):
                return request.state
            metrics.TRANSITIONS.labels(request.state, outcome.to).inc()
            if outcome.to in TERMINAL:
                metrics.ENDS.labels(outcome.to, outcome.reason or "").inc()
            return outcome.to

        yield told


@contextmanager
def of_proposal(proposal: Proposal, verb: Verb) -> Iterator[Callable[[ProposalOutcome], ProposalState]]:
    """The same around a step of a proposal."""
    with (
        work.step(verb, proposal_id=proposal.id, chain_id=proposal.chain_id) as step,
        _taken_over(step, "proposal"),
    ):

        def told(outcome: ProposalOutcome) -> ProposalState:
            step.outcome = _waits(outcome.fault, failed=bool(outcome.failed_attempt))
            if outcome.state is not proposal.state:
                step.outcome = ENDED if outcome.state in _ENDED_PROPOSAL else ADVANCED
            return outcome.state

        yield told


@contextmanager
def of_chain(chain_id: int, verb: Verb) -> Iterator[Step]:
    """Around a look at a chain."""
    with work.step(verb, chain_id=chain_id) as step, _taken_over(step, "chain"):
        yield step


@contextmanager
def of_endpoint(endpoint_id: str, verb: Verb) -> Iterator[Step]:
    """Around the deliveries of a webhook endpoint."""
    with work.step(verb, endpoint_id=endpoint_id) as step, _taken_over(step, "webhook_endpoint"):
        yield step


@contextmanager
def of_account(workspace_id: str, verb: Verb) -> Iterator[Step]:
    """Around a search of a workspace's account at Phala Cloud."""
    with work.step(verb, workspace_id=workspace_id) as step, _taken_over(step, "account"):
        yield step


@contextmanager
def _taken_over(step: Step, kind: str) -> Iterator[None]:
    try:
        yield
    except LeaseLost:
        step.outcome = TAKEN_OVER
        metrics.LEASES_LOST.labels(kind).inc()
        raise


def _name(outcome: Outcome) -> str:
    if isinstance(outcome, Wait):
        return _waits(outcome.reason, failed=outcome.failed_attempt)
    return ENDED if outcome.to in TERMINAL else ADVANCED


def _waits(reason: Reason | None, *, failed: bool) -> str:
    if reason is Reason.INTERNAL_ERROR:
        return ERROR
    return FAILED if failed else WAITING
