"""The tasks: thin, each carries an id only."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from celery import Celery
from kombu.exceptions import OperationalError

from service.domain.errors import LeaseLost
from service.domain.snapshots import ProposalState
from service.domain.states import TERMINAL, State
from service.store import heartbeats, idempotency, leases, outbox, recoveries, retention, standing
from service.store.tables import ChainCursor, ChangeRequest, Proposal
from service.telemetry import metrics
from service.wiring import WorkerParts
from workers import serve
from workers.app import FORGET_TASK, ROUND_TRIP_TASK, SWEEP_TASK
from workers.verbs import PROPOSAL_VERBS, REQUEST_VERBS, Verb

SWEEP_LIMIT = 500
STEPS_AT_ONCE = 3
"""Steps of one change request that a worker takes without asking who else waits."""

SAME_SWEEP_SECONDS: Final = 0.2
"""For so long a sweep that was rung for is expected to begin in this process; another process may have taken it."""

REQUEST_TASK = "countersign.request"
PROPOSAL_TASK = "countersign.proposal"
CHAIN_TASK = "countersign.chain"
DELIVERY_TASK = "countersign.delivery"
RECOVERY_TASK = "countersign.recovery"

Id = TypeVar("Id", str, int)
Result = TypeVar("Result")

log = logging.getLogger(__name__)


class Doorbell:
    """Publishes ids to the queues. A broker that does not answer is no fault: the sweep rings again."""

    def __init__(self, app: Celery, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Take the application that publishes."""
        self._app = app
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._same_sweep_until = 0.0

    def ring_for_all(self) -> None:
        """Have a sweep look for whoever is due; one that was rung for and has not begun will see them, too."""
        with self._lock:
            now = self._monotonic()
            if now < self._same_sweep_until:
                return
            self._same_sweep_until = now + SAME_SWEEP_SECONDS
        self.ring(SWEEP_TASK, Verb.SWEEP)

    def sweep_begins(self) -> None:
        """What becomes due from now on may need another one."""
        with self._lock:
            self._same_sweep_until = 0.0

    def ring(self, task: str, verb: Verb, row_id: str | int | None = None) -> None:
        """Wake a worker for a row."""
        try:
            self._app.send_task(task, args=[] if row_id is None else [row_id], queue=verb.value)
        except (OperationalError, OSError):
            log.warning("the broker does not answer; the sweep will ring again", extra={"task": task})


def register(app: Celery, parts: Callable[[], WorkerParts]) -> None:
    """Add the tasks. ``parts`` gives the process's parts once it has them."""
    bell = Doorbell(app)
    process = f"{socket.gethostname()}:{os.getpid()}"

    @app.task(name=SWEEP_TASK)  # type: ignore[untyped-decorator]  # Celery ships no types
    def sweep() -> None:
        bell.sweep_begins()
        heartbeats.beat(parts().database, process, "worker")
        sweep_once(parts(), bell)

    @app.task(name=ROUND_TRIP_TASK)  # type: ignore[untyped-decorator]  # likewise
    def round_trip(queue: str) -> None:
        heartbeats.served(parts().database, queue)
        metrics.ROUND_TRIPS.labels(queue).inc()

    @app.task(name=FORGET_TASK)  # type: ignore[untyped-decorator]  # likewise
    def forget() -> None:
        retention.forget(parts().database)
        standing.forget_old(parts().database)

    @app.task(name=REQUEST_TASK)  # type: ignore[untyped-decorator]  # likewise
    def request(request_id: str) -> None:
        carry_on(parts(), bell, request_id)

    @app.task(name=PROPOSAL_TASK)  # type: ignore[untyped-decorator]  # likewise
    def proposal(proposal_id: str) -> None:
        if _unless_taken_over(serve.serve_proposal, parts(), proposal_id) is not None:
            bell.ring_for_all()

    @app.task(name=CHAIN_TASK)  # type: ignore[untyped-decorator]  # likewise
    def chain(chain_id: int) -> None:
        look_and_ring(parts(), bell, chain_id)

    @app.task(name=RECOVERY_TASK)  # type: ignore[untyped-decorator]  # likewise
    def recovery(workspace_id: str) -> None:
        _unless_taken_over(serve.serve_recovery, parts(), workspace_id)

    _register_delivery(app, parts, bell)


def _register_delivery(app: Celery, parts: Callable[[], WorkerParts], bell: Doorbell) -> None:
    # Slow receivers must not take every thread from the change requests.
    seats = threading.Semaphore(max(1, app.conf.worker_concurrency // 2))

    @app.task(name=DELIVERY_TASK)  # type: ignore[untyped-decorator]  # likewise
    def delivery(endpoint_id: str) -> None:
        if not seats.acquire(blocking=False):
            outbox.not_now(parts().database, endpoint_id)
            return
        try:
            more = _unless_taken_over(serve.serve_endpoint, parts(), endpoint_id)
        finally:
            seats.release()
        if more:
            bell.ring(DELIVERY_TASK, Verb.DELIVER, endpoint_id)


def _unless_taken_over(serve_row: Callable[[WorkerParts, Id], Result], parts: WorkerParts, row_id: Id) -> Result | None:
    try:
        return serve_row(parts, row_id)
    except LeaseLost:
        log.info("another worker took over", extra={"row": str(row_id)})
        return None


def carry_on(parts: WorkerParts, bell: Doorbell, request_id: str) -> None:
    """Serve a change request, and go on with it as long as it is due, for a few steps.

    Each step has a lease of its own. What is left is rung for: others wait for this thread, too.
    """
    states: list[State] = []
    while len(states) < STEPS_AT_ONCE and (not states or states[-1] in REQUEST_VERBS):
        state = _unless_taken_over(serve.serve_request, parts, request_id)
        if state is None:
            break
        states.append(state)
    else:
        verb = REQUEST_VERBS.get(states[-1])
        if verb:
            bell.ring(REQUEST_TASK, verb, request_id)
    if len(states) > 1 or (states and states[-1] in TERMINAL):
        bell.ring_for_all()  # its proposal and its events have rows of their own


def look_and_ring(parts: WorkerParts, bell: Doorbell, chain_id: int) -> None:
    """Look at a chain, wake workers for whom there is news, and serve one of them here and now."""
    applied = _unless_taken_over(serve.serve_chain, parts, chain_id)
    if applied is None:
        return
    if applied.again:  # whoever heard of that block could not take the chain
        bell.ring(CHAIN_TASK, Verb.OBSERVE, chain_id)
    for request_id, state in applied.rung[1:]:
        bell.ring(REQUEST_TASK, REQUEST_VERBS[state], request_id)
    if applied.rung:
        carry_on(parts, bell, applied.rung[0][0])


def sweep_once(parts: WorkerParts, bell: Doorbell) -> int:
    """Ring for everything that is due and not held, and forget old answers; how many rows rang."""
    database = parts.database
    rung = 0
    for row_id, state in leases.ring_due(database, ChangeRequest, SWEEP_LIMIT):
        bell.ring(REQUEST_TASK, REQUEST_VERBS[State(state)], row_id)
        rung += 1
    for row_id, state in leases.ring_due(database, Proposal, SWEEP_LIMIT):
        bell.ring(PROPOSAL_TASK, PROPOSAL_VERBS[ProposalState(state)], row_id)
        rung += 1
    for row_id, _ in leases.ring_due(database, ChainCursor, SWEEP_LIMIT):
        bell.ring(CHAIN_TASK, Verb.OBSERVE, row_id)
        rung += 1
    for endpoint_id in outbox.ring_due(database, SWEEP_LIMIT):
        bell.ring(DELIVERY_TASK, Verb.DELIVER, endpoint_id)
        rung += 1
    for workspace_id in recoveries.ring_due(database, SWEEP_LIMIT):
        bell.ring(RECOVERY_TASK, Verb.RECOVER, workspace_id)
        rung += 1
    idempotency.forget_old(database)
    return rung
