"""Sending the deliveries of a leased webhook endpoint: one after the other, for a while, recorded in small groups."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from service.domain.deliveries import Attempt, is_success, pause_after, retry_after
from service.domain.errors import AddressRefused, Unreachable
from service.domain.schedules import jitter_of
from service.domain.webhook_signature import headers
from service.domain.webhooks import Fault
from service.store import outbox
from service.store.leases import Lease
from service.store.outbox import Batch, Delivery, Result
from service.store.sealing import SealingError
from service.telemetry import metrics
from service.telemetry.context import working_for
from service.wiring import WorkerParts

SLICE_SECONDS: Final = 5.0
"""How long one endpoint is served before others have their turn."""
BATCH: Final = 100
GROUP: Final = 20
GROUP_SECONDS: Final = 0.1
"""Attempts are recorded in groups of so many, or made within so long; what a crash forgets is sent again."""
SEALED_AGAIN_SECONDS: Final = 60.0

log = logging.getLogger(__name__)


def deliver(parts: WorkerParts, lease: Lease) -> bool:
    """Send what is due and give the lease back; whether more is due at once.

    Raises:
        LeaseLost: another worker took over.
    """
    until = time.monotonic() + SLICE_SECONDS
    while True:
        batch = outbox.load(parts.database, lease, parts.clock.now(), BATCH)
        run = _Run(parts, lease, batch)
        if batch.deliveries:
            run.send(until)
        done = not batch.deliveries or run.stopped or parts.keeper.closing
        if done or time.monotonic() > until:
            outbox.give_back(parts.database, lease, run.hold_seconds, unanswered=run.unanswered)
            return not done


@dataclass(slots=True)
class _Run:
    """One batch on its way.

    Attributes:
        hold_seconds: how long nothing more is to be sent to the endpoint.
        unanswered: nobody was there.
        stopped: nothing more is to be sent now.
    """

    parts: WorkerParts
    lease: Lease
    batch: Batch
    hold_seconds: float = 0.0
    unanswered: bool = False
    stopped: bool = False
    _results: list[Result] = field(default_factory=list)
    _failed: set[str | None] = field(default_factory=set)

    def send(self, until: float) -> None:
        """Send the batch in order until it ends, the endpoint has to wait, or ``until``."""
        try:
            secrets = [secret.get_secret_value() for secret in outbox.secrets(self.parts.database, self.batch)]
        except SealingError as error:
            self._wait_for_key(error)
            return
        recorded = time.monotonic()
        for delivery in self.batch.deliveries:
            if delivery.change_request_id in self._failed:
                continue
            self._try(delivery, secrets)
            now = time.monotonic()
            if self.stopped or len(self._results) >= GROUP or now - recorded > GROUP_SECONDS:
                self._record()
                recorded = now
            if self.stopped or now > until or self.parts.keeper.closing:
                break
        self._record()

    def _wait_for_key(self, error: SealingError) -> None:
        log.warning("a webhook secret cannot be opened: %s", error)
        attempt = Attempt(self.parts.clock.now(), 0, None, str(error), Fault.SECRET_UNREADABLE)
        self._results.append(Result(self.batch.deliveries[0].id, attempt, SEALED_AGAIN_SECONDS))
        self.stopped, self.hold_seconds = True, SEALED_AGAIN_SECONDS
        self._record()

    def _record(self) -> None:
        if not self._results:
            return
        limit = self.parts.timings.webhook_disable
        served = outbox.record(self.parts.database, self.lease, self._results, disable_seconds=limit)
        self._results.clear()
        self.stopped = self.stopped or not served

    def _try(self, delivery: Delivery, secrets: Sequence[str]) -> None:
        at = self.parts.clock.now()
        secret, *also = secrets
        signed = headers(secret, delivery.event_id, int(at.timestamp()), delivery.body, also=also)
        started = time.monotonic()
        with working_for(delivery_id=delivery.id, change_request_id=delivery.change_request_id):
            status, asked, detail, fault = self._post({**signed, "content-type": "application/json"}, delivery)
        attempt = Attempt(at, int((time.monotonic() - started) * 1000), status, detail, fault)
        metrics.DELIVERIES.labels(fault or "delivered").inc()
        if attempt.succeeded:
            self._results.append(Result(delivery.id, attempt, None))
            return
        again = retry_after(attempt, delivery.step, asked, jitter=jitter_of(delivery.id))
        self._results.append(Result(delivery.id, attempt, again))
        if delivery.change_request_id is not None:
            self._failed.add(delivery.change_request_id)
        pause = pause_after(attempt, asked, self.batch.unanswered)
        if pause is not None:
            self.stopped, self.hold_seconds, self.unanswered = True, pause.seconds, pause.unanswered

    def _post(
        self, all_headers: dict[str, str], delivery: Delivery
    ) -> tuple[int | None, float | None, str, Fault | None]:
        """Status, ``Retry-After``, what was said, and the fault."""
        try:
            answer = self.parts.poster.post(self.batch.url, all_headers, delivery.body)
        except AddressRefused as error:
            return None, None, error.detail, Fault.ADDRESS_REFUSED
        except Unreachable as error:
            return None, None, error.detail, Fault.NO_ANSWER if error.outcome_unknown else Fault.NO_CONNECTION
        except Exception as error:  # a defect must not lose the row; it is logged and shown
            log.exception("a webhook could not be sent", extra={"row": delivery.id})
            return None, None, type(error).__name__, Fault.INTERNAL_ERROR
        fault = None if is_success(answer.status) else Fault.BAD_STATUS
        return answer.status, answer.retry_after, answer.excerpt, fault
