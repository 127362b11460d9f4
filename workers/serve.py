"""Lease -> step -> apply, for each kind of row. No task queue in here: tasks call these, tests may too.

Each raises ``LeaseLost`` when another worker took the row over meanwhile: nothing was written then.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from secrets import token_hex

from service.domain import snapshots as domain
from service.domain.errors import CountersignError, CvmBusy, LeaseLost, Unreachable
from service.domain.origin import approval_origin, rejection_origin
from service.domain.outcomes import Outcome, ProposalOutcome, Wait, stop
from service.domain.reasons import BLOCKS_WORKSPACE, Reason
from service.domain.schedules import SafePace, blocked_backoff, jitter_of, safe_service_backoff, spread, step_backoff
from service.domain.snapshots import ProposalState
from service.domain.states import State
from service.ports import Phala
from service.steps.approval import chain_of
from service.steps.await_approval import await_approval
from service.steps.commit import commit
from service.steps.ends import ending
from service.steps.observe import observe
from service.steps.post import post
from service.steps.prepare import prepare
from service.steps.propose import propose
from service.steps.recover import recover
from service.steps.signatures import signatures
from service.steps.tidy import tidy
from service.steps.track import track
from service.steps.upkeep import Upkeep, upkeep
from service.steps.withdraw import withdraw
from service.store import leases, observations, proposals, recoveries, snapshots, standing, transitions
from service.store.leases import Lease, LeasedTable
from service.store.observations import Applied
from service.store.proposals import StoredProposalIntents, StoredRequestIntents
from service.store.recoveries import StoredRecoveryIntents
from service.store.sealing import SealingError
from service.store.tables import ChangeRequest, PhalaRecovery, Proposal, WebhookEndpoint
from service.telemetry.context import working_for
from service.wiring import WorkerParts
from workers import telling
from workers.deliver import deliver
from workers.verbs import PROPOSAL_VERBS, REQUEST_VERBS, Verb

SEALED_AGAIN_SECONDS = 60.0
BLOCKED_SECONDS = 60.0

log = logging.getLogger(__name__)


@contextmanager
def _leased(parts: WorkerParts, table: LeasedTable, row_id: str | int) -> Iterator[Lease | None]:
    """The lease of a due row, renewed while the block runs; ``None`` when there is nothing to do, or no time left."""
    lease = None if parts.keeper.closing else leases.acquire(parts.database, table, row_id)
    if lease is None:
        yield None
        return
    with _renewed(parts, lease):
        yield lease


@contextmanager
def _renewed(parts: WorkerParts, lease: Lease) -> Iterator[None]:
    """Renew a lease while the block runs."""
    parts.keeper.add(lease)
    try:
        yield
    finally:
        parts.keeper.drop(lease)


def serve_request(parts: WorkerParts, request_id: str) -> State | None:
    """Take a change request one step further; its state afterwards, ``None`` when there was nothing to do."""
    with working_for(change_request_id=request_id), _leased(parts, ChangeRequest, request_id) as lease:
        if lease is None:
            return None
        try:
            with parts.database.reads() as session:
                request = snapshots.change_request(parts.database, session, request_id)
        except SealingError as error:
            return _wait_for_key(parts, lease, request_id, error)
        with telling.of_request(request, REQUEST_VERBS[request.state]) as told:
            if _is_held_up(request):
                return told(_store(parts, lease, request, ending(request, parts.clock.now()) or _held_up(request)))
            kept = _kept_up(parts, lease, request)
            step = partial(_request_step, parts, lease, kept.request)
            return told(_store(parts, lease, request, kept.end or kept.bound(_guarded(parts, kept.request, step))))


def _wait_for_key(parts: WorkerParts, lease: Lease, request_id: str, error: SealingError) -> State:
    """The token does not open: nothing can be done but end in time, until the operator brings the key back."""
    with parts.database.reads() as session:
        request = snapshots.change_request(parts.database, session, request_id, open_token=False)
    with telling.of_request(request, REQUEST_VERBS[request.state]) as told:
        log.warning("a commit token cannot be opened: %s", error)
        waited = Wait(SEALED_AGAIN_SECONDS, Reason.SECRET_UNREADABLE, str(error), failed_attempt=True)
        return told(_store(parts, lease, request, ending(request, parts.clock.now()) or waited))


def _store(parts: WorkerParts, lease: Lease, request: domain.ChangeRequest, outcome: Outcome) -> Outcome:
    """Apply an outcome; one that the database refuses becomes another that it takes. What was stored."""
    try:
        transitions.apply(parts.database, lease, request.state, outcome, parts.clock.now())
    except LeaseLost:
        raise
    except CvmBusy as error:
        outcome = stop(State.FAILED, Reason.CVM_BUSY, error.detail)
    except Exception as error:  # what was done outside is found again by looking, as after a crash
        log.exception("an outcome could not be stored", extra={"row": request.id, "state": request.state.value})
        wait = step_backoff(request.attempts + 1)
        outcome = Wait(wait, Reason.INTERNAL_ERROR, type(error).__name__, failed_attempt=True)
    else:
        return outcome
    transitions.apply(parts.database, lease, request.state, outcome, parts.clock.now())
    return outcome


def _kept_up(parts: WorkerParts, lease: Lease, request: domain.ChangeRequest) -> Upkeep:
    """The request after its upkeep. Whatever goes wrong there must not keep its step from being taken."""
    intents = StoredRequestIntents(parts.database, lease)
    try:
        return upkeep(request, phala=lambda: _phala_of(parts, request), intents=intents, clock=parts.clock)
    except LeaseLost:
        raise
    except Exception:
        log.exception("the upkeep failed", extra={"row": request.id, "state": request.state.value})
        return Upkeep(request)


def _phala_of(parts: WorkerParts, request: domain.ChangeRequest) -> Phala:
    try:
        return parts.phala.of(request.workspace.id)
    except SealingError as error:
        raise Unreachable(str(error), reason=Reason.SECRET_UNREADABLE) from error


def _request_step(parts: WorkerParts, lease: Lease, request: domain.ChangeRequest) -> Outcome:
    intents = StoredRequestIntents(parts.database, lease)
    chains, clock = parts.chains, parts.clock
    match request.state:
        case State.RECEIVED:
            return prepare(
                request,
                phala=parts.phala.of(request.workspace.id),
                chains=chains,
                queues=parts.queues,
                signer=parts.signer,
                intents=intents,
                clock=clock,
            )
        case State.PREPARED:
            return propose(
                request, chains=chains, queues=parts.queues, signer=parts.signer, intents=intents, clock=clock
            )
        case State.PROPOSED | State.EXECUTED:
            return await_approval(request, chains=chains, clock=clock, recheck_seconds=parts.timings.recheck)
        case State.REGISTERED:
            phala = parts.phala.of(request.workspace.id)
            return commit(
                request, phala=phala, chains=chains, intents=intents, clock=clock, new_id=lambda: token_hex(16)
            )
        case _:
            phala = parts.phala.of(request.workspace.id)
            return track(request, phala=phala, clock=clock, poll_seconds=parts.timings.track)


def _is_held_up(request: domain.ChangeRequest) -> bool:
    """What was sent to Phala Cloud already is followed, blocked or not."""
    sent = request.state is State.COMMITTED or request.commit_attempt_id is not None
    return request.workspace.blocked is not None and not sent


def _held_up(request: domain.ChangeRequest) -> Wait:
    """Nothing is prepared, proposed or committed until the operator lets the workspace go on."""
    return Wait(BLOCKED_SECONDS, Reason.WORKSPACE_BLOCKED, request.workspace.blocked)


def _guarded(parts: WorkerParts, request: domain.ChangeRequest, step: Callable[[], Outcome]) -> Outcome:
    """A fault becomes a wait that is counted and shown, never a lost row."""
    try:
        return step()
    except LeaseLost:
        raise
    except CvmBusy as error:
        return stop(State.FAILED, Reason.CVM_BUSY, error.detail)
    except CountersignError as error:
        reason, detail, retry_after = error.reason, error.detail, error.retry_after
        if error.subject is not None:
            standing.note(parts.database, request.workspace.id, error.subject, reason, detail)
    except Exception as error:  # a defect must not lose the row; it is logged and shown
        log.exception("a step failed", extra={"row": request.id, "state": request.state.value})
        reason, detail, retry_after = Reason.INTERNAL_ERROR, type(error).__name__, None
    wait = _backoff(reason, request.attempts + 1, retry_after)
    return Wait(wait, reason, detail, failed_attempt=True)


def _backoff(reason: Reason, failed_attempts: int, retry_after: float | None) -> float:
    backoff = safe_service_backoff if reason is Reason.SAFE_SERVICE_UNREACHABLE else step_backoff
    if reason in BLOCKS_WORKSPACE:
        backoff = blocked_backoff
    return backoff(failed_attempts, retry_after)


def serve_proposal(parts: WorkerParts, proposal_id: str) -> ProposalState | None:
    """Take a proposal one step further; its state afterwards, ``None`` when there was nothing to do."""
    with _leased(parts, Proposal, proposal_id) as lease:
        if lease is None:
            return None
        with parts.database.reads() as session:
            proposal = snapshots.proposal(session, proposal_id)
            posting = proposal.state is ProposalState.POSTING
            blocked = standing.block_of(session, proposal.workspace_id) if posting else None
        if proposal.state not in PROPOSAL_VERBS:
            return None
        with telling.of_proposal(proposal, PROPOSAL_VERBS[proposal.state]) as told:
            outcome = _guarded_proposal(parts, lease, proposal, blocked)
            proposals.apply(parts.database, lease, proposal, outcome)
            return told(outcome)


def _guarded_proposal(
    parts: WorkerParts, lease: Lease, proposal: domain.Proposal, blocked: str | None
) -> ProposalOutcome:
    """As of a change request: a fault becomes a wait that is counted and shown."""
    try:
        return _proposal_step(parts, lease, proposal, blocked)
    except LeaseLost:
        raise
    except CountersignError as error:
        reason, detail, retry_after = error.reason, error.detail, error.retry_after
    except Exception as error:  # as above
        log.exception("a step failed", extra={"row": proposal.id, "state": proposal.state.value})
        reason, detail, retry_after = Reason.INTERNAL_ERROR, type(error).__name__, None
    wait = _backoff(reason, proposal.attempts + 1, retry_after)
    return ProposalOutcome(proposal.state, wait, detail=detail, failed_attempt=True, fault=reason)


def _proposal_step(parts: WorkerParts, lease: Lease, proposal: domain.Proposal, blocked: str | None) -> ProposalOutcome:
    chain, queue = chain_of(parts.chains, proposal.chain_id), parts.queues[proposal.chain_id]
    intents = StoredProposalIntents(parts.database, lease)
    signer, clock = parts.signer, parts.clock
    match proposal.state:
        case ProposalState.POSTING:
            if blocked is not None:
                raise CountersignError(blocked, reason=Reason.WORKSPACE_BLOCKED, retry_after=BLOCKED_SECONDS)
            origin = approval_origin(proposal.members)
            return post(proposal, chain=chain, queue=queue, signer=signer, intents=intents, clock=clock, origin=origin)
        case ProposalState.WITHDRAWING:
            origin = rejection_origin(proposal.former)
            return withdraw(proposal, chain=chain, queue=queue, signer=signer, intents=intents, origin=origin)
        case ProposalState.APPROVED:
            return tidy(proposal, chain=chain, queue=queue, clock=clock)
        case _:
            timings = parts.timings
            shared_by = proposals.count_open(parts.database)
            poll = spread(timings.safe_poll, jitter_of(proposal.id))
            pace = SafePace(poll, shared_by, timings.safe_requests_per_month)
            return signatures(proposal, chain=chain, queue=queue, proposer=signer.address, clock=clock, pace=pace)


def serve_chain(parts: WorkerParts, chain_id: int) -> Applied:
    """Read what is new on a chain; whom this makes due."""
    chain = parts.chains.get(chain_id)
    look = None if chain is None or parts.keeper.closing else observations.take(parts.database, chain_id)
    if chain is None or look is None:
        return Applied()
    with _renewed(parts, look.lease), telling.of_chain(chain_id, Verb.OBSERVE) as step:
        try:
            seen = observe(chain, look.cursor, look.known)
        except Exception as error:
            expected = isinstance(error, CountersignError)
            if not expected:
                log.exception("a chain could not be read", extra={"chain_id": chain_id})
            detail = str(error) if expected else type(error).__name__
            observations.fail(parts.database, look.lease, detail=detail, wait_seconds=parts.timings.observe)
            step.outcome = telling.FAILED if expected else telling.ERROR
            return Applied()
        applied = observations.apply(
            parts.database, look.lease, seen, interval_seconds=parts.timings.observe, now=parts.clock.now()
        )
        step.outcome = telling.ADVANCED if applied.rung else telling.WAITING
        return applied


def serve_endpoint(parts: WorkerParts, endpoint_id: str) -> bool:
    """Send what is due at a webhook endpoint for a while; whether more is due at once."""
    with _leased(parts, WebhookEndpoint, endpoint_id) as lease:
        if lease is None:
            return False
        with telling.of_endpoint(endpoint_id, Verb.DELIVER) as step:
            more = deliver(parts, lease)
            step.outcome = telling.ADVANCED
            return more


def serve_recovery(parts: WorkerParts, workspace_id: str) -> None:
    """Search a workspace's account at Phala Cloud for what did not arrive."""
    with _leased(parts, PhalaRecovery, workspace_id) as lease:
        if lease is None:
            return
        with telling.of_account(workspace_id, Verb.RECOVER) as step:
            step.outcome = _search(parts, lease, workspace_id)


def _search(parts: WorkerParts, lease: Lease, workspace_id: str) -> str:
    """Look through a leased account; how that ended."""
    account = recoveries.account(parts.database, lease)
    if account is None:
        recoveries.rest(parts.database, lease)
        return telling.ENDED
    every = parts.timings.recover
    try:
        phala, intents = parts.phala.of(workspace_id), StoredRecoveryIntents(parts.database, lease)
        found = recover(account, phala=phala, intents=intents, clock=parts.clock)
    except LeaseLost:
        raise
    except CountersignError as error:
        wait = max(every, step_backoff(1, error.retry_after))
        recoveries.fail(parts.database, lease, detail=error.detail, wait_seconds=wait)
        return telling.FAILED
    except SealingError as error:
        recoveries.fail(parts.database, lease, detail=str(error), wait_seconds=every)
        return telling.FAILED
    except Exception as error:  # as above
        log.exception("an account could not be searched")
        recoveries.fail(parts.database, lease, detail=type(error).__name__, wait_seconds=every)
        return telling.ERROR
    wait = every if found.fault is None else max(every, step_backoff(1, found.fault.retry_after))
    recoveries.apply(parts.database, lease, found, wait_seconds=wait, now=parts.clock.now())
    return telling.ADVANCED if found.fault is None else telling.FAILED
