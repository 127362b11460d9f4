"""Lease -> step -> apply, for each kind of row. No task queue in here: tasks call these, tests may too.

Each raises ``LeaseLost`` when another worker took the row over meanwhile: nothing was written then.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from secrets import token_hex

from service.domain import snapshots as domain
from service.domain.errors import CountersignError, CvmBusy, LeaseLost, Unreachable
from service.domain.origin import approval_origin, rejection_origin
from service.domain.outcomes import Outcome, ProposalOutcome, Wait, stop
from service.domain.reasons import Reason
from service.domain.schedules import SafePace, safe_service_backoff, step_backoff
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
from service.store import leases, observations, proposals, recoveries, snapshots, transitions
from service.store.leases import Lease, LeasedTable
from service.store.proposals import StoredProposalIntents, StoredRequestIntents
from service.store.recoveries import StoredRecoveryIntents
from service.store.sealing import SealingError
from service.store.tables import ChangeRequest, PhalaRecovery, Proposal, WebhookEndpoint
from service.wiring import WorkerParts
from workers.deliver import deliver
from workers.verbs import PROPOSAL_VERBS

SEALED_AGAIN_SECONDS = 60.0

log = logging.getLogger(__name__)


@contextmanager
def _leased(parts: WorkerParts, table: LeasedTable, row_id: str | int) -> Iterator[Lease | None]:
    """The lease of a due row, renewed while the block runs; ``None`` when there is nothing to do."""
    lease = leases.acquire(parts.database, table, row_id)
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
    with _leased(parts, ChangeRequest, request_id) as lease:
        if lease is None:
            return None
        try:
            with parts.database.reads() as session:
                request = snapshots.change_request(parts.database, session, request_id)
        except SealingError as error:
            return _wait_for_key(parts, lease, request_id, error)
        kept = _kept_up(parts, lease, request)
        outcome = kept.end or kept.bound(_guarded(kept.request, lambda: _request_step(parts, lease, kept.request)))
        return _store(parts, lease, request, outcome)


def _wait_for_key(parts: WorkerParts, lease: Lease, request_id: str, error: SealingError) -> State:
    """The token does not open: nothing can be done but end in time, until the operator brings the key back."""
    log.warning("a commit token cannot be opened: %s", error)
    with parts.database.reads() as session:
        request = snapshots.change_request(parts.database, session, request_id, open_token=False)
    waited = Wait(SEALED_AGAIN_SECONDS, Reason.SECRET_UNREADABLE, str(error), failed_attempt=True)
    return _store(parts, lease, request, ending(request, parts.clock.now()) or waited)


def _store(parts: WorkerParts, lease: Lease, request: domain.ChangeRequest, outcome: Outcome) -> State:
    """Apply an outcome; one that the database refuses becomes another that it takes. The state afterwards."""
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
        return _state_after(request, outcome)
    transitions.apply(parts.database, lease, request.state, outcome, parts.clock.now())
    return _state_after(request, outcome)


def _state_after(request: domain.ChangeRequest, outcome: Outcome) -> State:
    return request.state if isinstance(outcome, Wait) else outcome.to


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


def _guarded(request: domain.ChangeRequest, step: Callable[[], Outcome]) -> Outcome:
    """A fault becomes a wait that is counted and shown, never a lost row."""
    try:
        return step()
    except LeaseLost:
        raise
    except CvmBusy as error:
        return stop(State.FAILED, Reason.CVM_BUSY, error.detail)
    except CountersignError as error:
        reason, detail, retry_after = error.reason, error.detail, error.retry_after
    except Exception as error:  # a defect must not lose the row; it is logged and shown
        log.exception("a step failed", extra={"row": request.id, "state": request.state.value})
        reason, detail, retry_after = Reason.INTERNAL_ERROR, type(error).__name__, None
    wait = _backoff(reason, request.attempts + 1, retry_after)
    return Wait(wait, reason, detail, failed_attempt=True)


def _backoff(reason: Reason, failed_attempts: int, retry_after: float | None) -> float:
    backoff = safe_service_backoff if reason is Reason.SAFE_SERVICE_UNREACHABLE else step_backoff
    return backoff(failed_attempts, retry_after)


def serve_proposal(parts: WorkerParts, proposal_id: str) -> ProposalState | None:
    """Take a proposal one step further; its state afterwards, ``None`` when there was nothing to do."""
    with _leased(parts, Proposal, proposal_id) as lease:
        if lease is None:
            return None
        with parts.database.reads() as session:
            proposal = snapshots.proposal(session, proposal_id)
        if proposal.state not in PROPOSAL_VERBS:
            return None
        try:
            outcome = _proposal_step(parts, lease, proposal)
        except LeaseLost:
            raise
        except CountersignError as error:
            wait = _backoff(error.reason, proposal.attempts + 1, error.retry_after)
            outcome = ProposalOutcome(
                proposal.state, wait, detail=error.detail, failed_attempt=True, fault=error.reason
            )
        except Exception as error:  # as above
            log.exception("a step failed", extra={"row": proposal.id, "state": proposal.state.value})
            wait = step_backoff(proposal.attempts + 1)
            fault = Reason.INTERNAL_ERROR
            outcome = ProposalOutcome(
                proposal.state, wait, detail=type(error).__name__, failed_attempt=True, fault=fault
            )
        proposals.apply(parts.database, lease, proposal, outcome)
        return outcome.state


def _proposal_step(parts: WorkerParts, lease: Lease, proposal: domain.Proposal) -> ProposalOutcome:
    chain, queue = chain_of(parts.chains, proposal.chain_id), parts.queues[proposal.chain_id]
    intents = StoredProposalIntents(parts.database, lease)
    signer, clock = parts.signer, parts.clock
    match proposal.state:
        case ProposalState.POSTING:
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
            pace = SafePace(timings.safe_poll, shared_by, timings.safe_requests_per_month)
            return signatures(proposal, chain=chain, queue=queue, proposer=signer.address, clock=clock, pace=pace)


def serve_chain(parts: WorkerParts, chain_id: int) -> Sequence[tuple[str, State]]:
    """Read what is new on a chain; the change requests that this makes due, with their states."""
    chain = parts.chains.get(chain_id)
    look = None if chain is None else observations.take(parts.database, chain_id)
    if chain is None or look is None:
        return ()
    with _renewed(parts, look.lease):
        try:
            seen = observe(chain, look.cursor, look.known)
        except Exception as error:
            expected = isinstance(error, CountersignError)
            if not expected:
                log.exception("a chain could not be read", extra={"chain_id": chain_id})
            detail = str(error) if expected else type(error).__name__
            observations.fail(parts.database, look.lease, detail=detail, wait_seconds=parts.timings.observe)
            return ()
        return observations.apply(
            parts.database, look.lease, seen, interval_seconds=parts.timings.observe, now=parts.clock.now()
        )


def serve_endpoint(parts: WorkerParts, endpoint_id: str) -> bool:
    """Send what is due at a webhook endpoint for a while; whether more is due at once."""
    with _leased(parts, WebhookEndpoint, endpoint_id) as lease:
        return lease is not None and deliver(parts, lease)


def serve_recovery(parts: WorkerParts, workspace_id: str) -> None:
    """Search a workspace's account at Phala Cloud for what did not arrive."""
    with _leased(parts, PhalaRecovery, workspace_id) as lease:
        account = None if lease is None else recoveries.account(parts.database, lease)
        if lease is None:
            return
        if account is None:
            recoveries.rest(parts.database, lease)
            return
        every = parts.timings.recover
        try:
            phala, intents = parts.phala.of(workspace_id), StoredRecoveryIntents(parts.database, lease)
            found = recover(account, phala=phala, intents=intents, clock=parts.clock)
        except LeaseLost:
            raise
        except CountersignError as error:
            wait = max(every, step_backoff(1, error.retry_after))
            recoveries.fail(parts.database, lease, detail=error.detail, wait_seconds=wait)
        except SealingError as error:
            recoveries.fail(parts.database, lease, detail=str(error), wait_seconds=every)
        except Exception as error:  # as above
            log.exception("an account could not be searched", extra={"workspace": workspace_id})
            recoveries.fail(parts.database, lease, detail=type(error).__name__, wait_seconds=every)
        else:
            wait = every if found.fault is None else max(every, step_backoff(1, found.fault.retry_after))
            recoveries.apply(parts.database, lease, found, wait_seconds=wait, now=parts.clock.now())
