"""The listener: hears of new blocks and rings for their chains. One leader per chain, by advisory lock.

It subscribes where it can and polls where it cannot. Without it everything still happens, only later: the sweep reads
each chain on its own schedule.
"""

import logging
import threading
import time

from pydantic import SecretStr

from service.domain.errors import CountersignError
from service.store import heartbeats, observations
from service.store.database import DatabaseFault, faults_in_one_line
from service.store.locks import Leadership, leadership
from service.telemetry import metrics
from service.telemetry.context import working_for
from service.wiring import WatchParts, subscribe_new_heads
from workers.tasks import CHAIN_TASK, Doorbell
from workers.verbs import Verb

LEADER_RETRY_SECONDS = 5.0
SUBSCRIBE_AGAIN_SECONDS = 30.0
HEARTBEAT_SECONDS = 5.0
SHUTDOWN_SECONDS = 5.0

log = logging.getLogger(__name__)


def watch(parts: WatchParts, bell: Doorbell, stop: threading.Event, *, stop_seconds: float = SHUTDOWN_SECONDS) -> None:
    """Listen to every chain, each in a thread of its own, until ``stop`` is set.

    A call that hangs delays the end by ``stop_seconds`` at most: nothing is lost with it.
    """
    threads = [
        threading.Thread(target=_lead, args=(parts, bell, chain_id, stop), name=f"watch-{chain_id}", daemon=True)
        for chain_id in parts.chains
    ]
    for thread in threads:
        thread.start()
    stop.wait()
    deadline = time.monotonic() + stop_seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _lead(parts: WatchParts, bell: Doorbell, chain_id: int, stop: threading.Event) -> None:
    with working_for(chain_id=chain_id):
        _try_to_lead(parts, bell, chain_id, stop)


def _try_to_lead(parts: WatchParts, bell: Doorbell, chain_id: int, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            with faults_in_one_line(), leadership(parts.database, f"watch:{chain_id}") as lead:
                metrics.LEADING.labels(chain_id).set(lead.leads)
                if lead.leads:
                    log.info("listening to new blocks")
                    _Listener(parts, bell, chain_id, lead, stop).run()
        except DatabaseFault:
            log.warning("the database does not answer; trying again")
        except Exception:  # a defect must not end a chain's listener; it is logged
            log.exception("the listener failed; trying again")
        metrics.LEADING.labels(chain_id).set(0)
        stop.wait(LEADER_RETRY_SECONDS)


class _Listener:
    """The leader of one chain. Any fault of the database ends it, so that its lock is taken anew."""

    def __init__(
        self, parts: WatchParts, bell: Doorbell, chain_id: int, lead: Leadership, stop: threading.Event
    ) -> None:
        self._parts = parts
        self._bell = bell
        self._chain_id = chain_id
        self._lead = lead
        self._stop = stop
        self._next_heartbeat = 0.0

    def run(self) -> None:
        while not self._stop.is_set():
            ws_url = self._parts.ws_urls.get(self._chain_id)
            if ws_url is not None:
                self._subscribe(ws_url)
            self._poll(until=SUBSCRIBE_AGAIN_SECONDS if ws_url else None)

    def _ring(self, by: str) -> None:
        observations.ring_chain(self._parts.database, self._chain_id)
        self._bell.ring(CHAIN_TASK, Verb.OBSERVE, self._chain_id)
        metrics.HEADS.labels(self._chain_id, by).inc()

    def _heard(self) -> None:
        """The chain said something, be it that nothing is new: say so, and see whether this process leads still."""
        if time.monotonic() >= self._next_heartbeat:
            heartbeats.listened(self._parts.database, self._chain_id)
            self._lead.check()
            self._next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS

    def _subscribe(self, ws_url: SecretStr) -> None:
        """Ring on each new head until the subscription breaks or falls silent."""
        try:
            for _ in subscribe_new_heads(ws_url, self._stop, self._parts.patience_seconds):
                self._ring("subscription")
                self._heard()
        except CountersignError as error:
            log.warning("no subscription to new blocks, polling: %s", error.detail)

    def _poll(self, *, until: float | None) -> None:
        """Ring whenever the head moved; for ``until`` seconds, or until the end when that is ``None``."""
        seen: str | None = None
        waited = 0.0
        while not self._stop.is_set() and (until is None or waited < until):
            self._lead.check()
            try:
                head = self._parts.chains[self._chain_id].view().head.hash
            except CountersignError as error:
                log.warning("the chain does not answer: %s", error.detail)
            else:
                if head != seen:
                    self._ring("poll")
                seen = head
                self._heard()
            self._stop.wait(self._parts.poll_seconds)
            waited += self._parts.poll_seconds
