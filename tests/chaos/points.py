"""Where a worker may be killed: what goes over the wire about a request, who listens to it, and who kills there."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import psycopg

from sandbox.world import App
from service.domain.snapshots import ProposalState
from service.domain.states import TERMINAL
from tests.chaos.site import WORKERS, Site
from tests.chaos.wire import WireEvent
from workers.verbs import PROPOSAL_VERBS

_TAPPED: Final = ("postgres", "rpc", "safe_service", "phala", "receiver")
_REPEATS: Final = {"received": 3, "prepared": 3}
"""How many of the same events in a step are points of their own; steps that poll have one of each."""


_TAKES_A_LEASE: Final = {"COMMIT UPDATE proposals", "COMMIT UPDATE change_requests"}
_UNSERVED: Final = {*sorted(TERMINAL), *(f"proposal {state}" for state in set(ProposalState) - PROPOSAL_VERBS.keys())}


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """Where a worker is killed.

    Attributes:
        story: what the request goes through.
        step: the state of the request at that moment, that of its proposal, ``observe`` or ``deliver``.
        dependency: with whom it talks.
        label: what it says.
        moment: as in ``WireEvent``.
        nth: of the same events in this step.
    """

    story: str
    step: str
    dependency: str
    label: str
    moment: str
    nth: int

    def __str__(self) -> str:
        again = f" ({self.nth})" if self.nth > 1 else ""
        return f"{self.story}, {self.step}: {self.dependency} {self.label} {self.moment}{again}"

    @property
    def is_look(self) -> bool:
        """Whether it changes nothing, so that it depends on the moment whether anybody comes by there.

        That is a poll, or a doorbell that comes too late: of what has ended nobody takes the lease.
        """
        too_late = self.label in _TAKES_A_LEASE and self.step in _UNSERVED
        return self.dependency == "rpc" or self.label.startswith("GET ") or too_late


class Subject:
    """A change request as the wire shows it: by the ids that are its own."""

    def __init__(self, site: Site, app: App) -> None:
        """Take the app, which has nobody else's requests."""
        self.app = app
        self.cvm = app.cvm_uuids[0]
        self.request_id = ""
        self._site = site
        self._marks = {self.cvm, self.cvm.replace("-", ""), app.address[2:].lower(), app.owner[2:].lower()}
        self._database = psycopg.connect(site.dsn, autocommit=True)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close its connection; who still listens learns nothing more."""
        with self._lock:
            self._database.close()

    def concerns(self, content: bytes) -> bool:
        """Whether bytes of the wire are about it."""
        return any(mark.encode() in content for mark in self._marks)

    def submit(self, compose_file: str) -> None:
        """Ask for the change."""
        self.request_id = self._site.stack.submit(self.cvm, compose_file)
        self._marks.add(self.request_id.lower())

    def states(self) -> tuple[str, str]:
        """States of the request and of its proposal; what is found of the proposal becomes marks."""
        query = """
            SELECT r.state, p.id, p.state,
                   array(SELECT safe_tx_hash FROM safe_transactions t WHERE t.proposal_id = p.id)
              FROM change_requests r LEFT JOIN proposals p ON p.app_contract = %s WHERE r.cvm_id = %s
             ORDER BY p.created_at DESC LIMIT 1
        """
        with self._lock:
            if self._database.closed:
                return "none", "none"
            row = self._database.execute(query, [self.app.address, self.cvm]).fetchone()
        if row is None:
            return "none", "none"
        if row[1]:
            self._marks |= {row[1].lower(), *(one[2:] for one in row[3])}
        return row[0], row[2] or "none"

    def state(self) -> str:
        """State of the request."""
        return self.states()[0]

    def open_ends(self) -> int:
        """How many of its proposals and deliveries are not at their end."""
        query = """
            SELECT (SELECT count(*) FROM proposals WHERE app_contract = %s AND due_at IS NOT NULL)
                 + (SELECT count(*) FROM webhook_deliveries WHERE change_request_id = %s AND state <> 'delivered')
        """
        with self._lock:
            row = self._database.execute(query, [self.app.address, self.request_id]).fetchone()
        return int(row[0]) if row else 0


def named(subject: Subject, event: WireEvent) -> tuple[str, str, str, str] | None:
    """Step, dependency, label and moment of an event that concerns a request, ``None`` of another."""
    if event.dependency == "receiver" or "UPDATE webhook_deliveries" in event.label:
        step = "deliver"
    elif not subject.concerns(event.content):
        return None
    elif "chain_cursors" in event.label or "eth_getLogs" in event.label:
        step = "observe"
    else:
        state, proposal = subject.states()
        step = f"proposal {proposal}" if _is_about_the_queue(event) else state
    return step, event.dependency, event.label, event.moment


def _is_about_the_queue(event: WireEvent) -> bool:
    return (event.dependency == "safe_service" and "delegates" not in event.label) or (
        event.label.startswith("COMMIT UPDATE proposals") or "safe_transactions" in event.label
    )


class Board:
    """Hands the events of all proxies to whoever listens.

    Attributes:
        killed_at: when a worker was killed last.
    """

    def __init__(self, site: Site) -> None:
        """Take the site."""
        self.killed_at = 0.0
        self._site = site
        self._listeners: list[Callable[[WireEvent], bool]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        for name in _TAPPED:
            self._site.proxies[name].listen_in(self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for name in _TAPPED:
            self._site.proxies[name].listen_in(None)

    def add(self, listener: Callable[[WireEvent], bool]) -> None:
        """Another listener."""
        with self._lock:
            self._listeners.append(listener)

    def remove(self, listener: Callable[[WireEvent], bool]) -> None:
        """One less."""
        with self._lock:
            self._listeners.remove(listener)

    def _hear(self, event: WireEvent) -> bool:
        with self._lock:
            listeners = tuple(self._listeners)
        return any(listener(event) for listener in listeners)


class Recorder:
    """Notes every event of the workers about a request."""

    def __init__(self, site: Site, subject: Subject) -> None:
        """Take the site and whose."""
        self.seen: list[tuple[str, str, str, str]] = []
        self._site = site
        self._subject = subject

    def __call__(self, event: WireEvent) -> bool:
        """Note one."""
        name = named(self._subject, event)
        if name is not None and self._site.who_has(event.client_port) in WORKERS:
            self.seen.append(name)
        return False

    def points(self, story: str) -> list[Point]:
        """What was seen as points, in order."""
        count: Counter[tuple[str, str, str, str]] = Counter()
        points = []
        for name in self.seen:
            count[name] += 1
            if count[name] <= _REPEATS.get(name[0], 1):
                points.append(Point(story, *name, count[name]))
        return points


class Trap:
    """Kills the worker that comes to a point."""

    def __init__(self, site: Site, board: "Board", subject: Subject, point: Point) -> None:
        """Take the site, where kills are noted, whose request, and where."""
        self.fired_at: float | None = None
        self._site = site
        self._board = board
        self._subject = subject
        self._point = point
        self._met = 0
        self._lock = threading.Lock()

    def __call__(self, event: WireEvent) -> bool:
        """Look at an event; whether the worker was killed at it."""
        point = self._point
        if (event.dependency, event.label, event.moment) != (point.dependency, point.label, point.moment):
            return False
        with self._lock:
            if self.fired_at is not None or not self._is_there(event):
                return False
            worker = self._site.who_has(event.client_port)
            if worker not in WORKERS:
                return False
            self._met += 1
            if self._met < point.nth:
                return False
            self._site.kill(worker)
            self.fired_at = self._board.killed_at = time.monotonic()
        self._site.bring_back(worker)
        return True

    def _is_there(self, event: WireEvent) -> bool:
        name = named(self._subject, event)
        return name is not None and name[0] == self._point.step
