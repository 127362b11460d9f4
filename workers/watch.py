"""The listener: hears of new blocks and rings for their chains. One leader per chain, by advisory lock.

It subscribes where it can and polls where it cannot. Without it everything still happens, only later: the sweep reads
each chain on its own schedule.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable

from pydantic import SecretStr

from service.domain.errors import CountersignError
from service.store import heartbeats, observations
from service.store.database import DatabaseFault, faults_in_one_line
from service.store.locks import leadership
from service.wiring import WatchParts, subscribe_new_heads
from workers.tasks import CHAIN_TASK, Doorbell
from workers.verbs import Verb

LEADER_RETRY_SECONDS = 5.0
SUBSCRIBE_AGAIN_SECONDS = 30.0

log = logging.getLogger(__name__)


def watch(parts: WatchParts, bell: Doorbell, stop: threading.Event) -> None:
    """Listen to every chain until ``stop`` is set."""
    threads = [
        threading.Thread(target=_lead, args=(parts, bell, chain_id, stop), name=f"watch-{chain_id}")
        for chain_id in parts.chains
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _lead(parts: WatchParts, bell: Doorbell, chain_id: int, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            with faults_in_one_line(), leadership(parts.database, f"watch:{chain_id}") as leads:
                if leads:
                    log.info("listening to new blocks", extra={"chain_id": chain_id})
                    _listen(parts, bell, chain_id, stop)
        except DatabaseFault:
            log.warning("the database does not answer; trying again", extra={"chain_id": chain_id})
        stop.wait(LEADER_RETRY_SECONDS)


def _listen(parts: WatchParts, bell: Doorbell, chain_id: int, stop: threading.Event) -> None:
    def ring() -> None:
        observations.ring_chain(parts.database, chain_id)
        bell.ring(CHAIN_TASK, Verb.OBSERVE, chain_id)
        heartbeats.beat(parts.database, f"{socket.gethostname()}:{os.getpid()}:{chain_id}", "watch")

    while not stop.is_set():
        ws_url = parts.ws_urls.get(chain_id)
        if ws_url is not None:
            _subscribe(ws_url, ring, stop)
        _poll(parts, chain_id, ring, stop, until=SUBSCRIBE_AGAIN_SECONDS if ws_url else None)


def _subscribe(ws_url: SecretStr, ring: Callable[[], None], stop: threading.Event) -> None:
    """Ring on each new head until the subscription breaks."""
    try:
        for _ in subscribe_new_heads(ws_url, stop):
            ring()
    except CountersignError as error:
        log.warning("no subscription to new blocks, polling: %s", error.detail)


def _poll(
    parts: WatchParts, chain_id: int, ring: Callable[[], None], stop: threading.Event, *, until: float | None
) -> None:
    """Ring whenever the head moved; for ``until`` seconds, or until ``stop`` when that is ``None``."""
    seen: str | None = None
    waited = 0.0
    while not stop.is_set() and (until is None or waited < until):
        try:
            head = parts.chains[chain_id].view().head.hash
        except CountersignError as error:
            log.warning("the chain does not answer: %s", error.detail, extra={"chain_id": chain_id})
        else:
            if head != seen:
                ring()
            seen = head
        stop.wait(parts.poll_seconds)
        waited += parts.poll_seconds
