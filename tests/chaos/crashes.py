"""Crash points: a worker is killed exactly when something goes over the wire, at everything that ever does.

The points are those of a run without faults, so that none is forgotten. At ``out`` the worker dies and its request goes
on; at ``in`` it dies with the answer in its hands; at ``sent`` the COMMIT does not arrive; at ``acknowledged`` it took
effect, and the worker never hears of it.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import psycopg

from sandbox.chain.accounts import OWNERS
from sandbox.polling import wait_for
from sandbox.world import App
from tests.chaos.site import WORKERS, Site
from tests.chaos.wire import WireEvent

BOUND_SECONDS: Final = 60.0
"""From the restart of the worker until everything is as it should be."""
_REACHED_SECONDS: Final = 90.0
_TAPPED: Final = ("postgres", "rpc", "safe_service", "phala", "receiver")
_TRIES: Final = 3
"""A point that a poll happens not to come by is gone for again."""
_REPEATS: Final = {"received": 3, "prepared": 3}
"""How many of the same events in a step are points of their own; steps that poll have one of each."""


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
        """Whether it changes nothing outside: a poll may happen not to come by there, depending on the moment."""
        return self.dependency == "rpc" or self.label.startswith("GET ")


@dataclass(slots=True)
class Crash:
    """What became of a point.

    Attributes:
        reached: whether a worker was killed there.
        seconds: from the restart of the worker killed last until all was well, ``None`` when it never was.
        wrong: what was not as it should be.
    """

    point: Point
    reached: bool = False
    seconds: float | None = None
    wrong: list[str] = field(default_factory=list)


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


# Stories: what a request goes through, and how it should be afterwards


@dataclass(frozen=True, slots=True)
class Story:
    """A way of a request.

    Attributes:
        begin: brings it to where points begin.
        go_on: what happens next, with the trap set.
        ends: the state at its end.
    """

    begin: Callable[[Site, Subject], object]
    go_on: Callable[[Site, Subject], None]
    ends: str


def _submit(site: Site, subject: Subject) -> None:
    del site
    subject.submit("services:\n  web:\n    image: nginx:1.29\n    environment:\n      RELEASE: 'crash'\n")


def _nothing(site: Site, subject: Subject) -> None:
    del site, subject


def _approve_when_proposed(site: Site, subject: Subject) -> None:
    if not wait_for(lambda: _is_queued(site, subject), _REACHED_SECONDS):
        return  # what is wrong then shows at the end
    approval = site.stack.sign(subject.request_id)
    site.stack.execute(approval)


def _is_queued(site: Site, subject: Subject) -> bool:
    return subject.state() in {"proposed", "executed", "registered", "committed", "completed"} and bool(
        (site.stack.get(subject.request_id)["approval"] or {}).get("safe_tx_hash")
    )


def _submit_and_approve(site: Site, subject: Subject) -> None:
    _submit(site, subject)
    _approve_when_proposed(site, subject)


def _until_proposed(site: Site, subject: Subject) -> bool:
    _submit(site, subject)
    return wait_for(lambda: _is_queued(site, subject), _REACHED_SECONDS)


def _until_signed(site: Site, subject: Subject) -> None:
    if _until_proposed(site, subject):  # else what is wrong shows at the end
        site.stack.sign(subject.request_id, owners=1)


def _cancel(site: Site, subject: Subject) -> None:
    site.stack.client.post(f"/v1/change-requests/{subject.request_id}/cancel").raise_for_status()


def _cancel_and_reject(site: Site, subject: Subject) -> None:
    _cancel(site, subject)

    def rejection() -> list[Any]:
        waiting = site.world.wallet.pending(subject.app.owner, 0)
        return [one for one in waiting if one.tx.to == subject.app.owner and not one.tx.data]

    found = wait_for(rejection, _REACHED_SECONDS, every=0.2)
    if found:
        for owner in OWNERS[:2]:
            site.world.wallet.confirm(found[0], owner)
        site.stack.execute(site.world.wallet.get(found[0].safe, found[0].safe_tx_hash))


STORIES: Final[dict[str, Story]] = {
    "approved": Story(_nothing, _submit_and_approve, "completed"),
    "cancelled unsigned": Story(_until_proposed, _cancel, "cancelled"),
    "cancelled when signed": Story(_until_signed, _cancel_and_reject, "cancelled"),
}


def record(site: Site, board: Board, story: str) -> list[Point]:
    """The points of a story, from a run without faults."""
    subject = Subject(site, site.world.add_app())
    told = STORIES[story]
    try:
        told.begin(site, subject)
        recorder = Recorder(site, subject)
        board.add(recorder)
        told.go_on(site, subject)
        wait_for(lambda: _is_well(subject, told), BOUND_SECONDS, every=0.1)
        board.remove(recorder)
    finally:
        subject.close()
    return recorder.points(story)


def _is_well(subject: Subject, story: Story) -> bool:
    return subject.state() == story.ends and subject.open_ends() == 0


def _crash(site: Site, board: Board, app: App, point: Point) -> Crash:
    """Go through a story, be killed at the point, and come to its end."""
    story = STORIES[point.story]
    subject = Subject(site, app)
    trap = Trap(site, board, subject, point)
    done = Crash(point)
    try:
        story.begin(site, subject)
        board.add(trap)
        story.go_on(site, subject)
        wait_for(lambda: trap.fired_at is not None or _is_well(subject, story), _REACHED_SECONDS)
        well = wait_for(lambda: _is_well(subject, story), _REACHED_SECONDS, every=0.1)
        board.remove(trap)
        done.reached = trap.fired_at is not None
        if well and trap.fired_at is not None:
            done.seconds = round(time.monotonic() - max(trap.fired_at, board.killed_at), 1)
        done.wrong += _what_is_wrong(site, subject, story, well=well)
    finally:
        subject.close()
    return done


def _what_is_wrong(site: Site, subject: Subject, story: Story, *, well: bool) -> list[str]:
    wrong = [] if well else [f"{subject.request_id} is {subject.state()}, {subject.open_ends()} open ends"]
    commits = len(site.stack.accepted_commits(subject.cvm))
    if commits != (story.ends == "completed"):
        wrong.append(f"{commits} accepted commits")
    prepared = site.world.phala.ledger("prepare", subject.cvm)
    hashes = {"0x" + str(one["compose_hash"]).removeprefix("0x") for one in prepared}
    proposals = sum(len(site.stack.proposals(subject.app, one)) for one in hashes)
    if story.ends == "completed" and proposals != 1:
        wrong.append(f"{proposals} proposals")
    return wrong


def run(site: Site, board: Board, *, lanes: int, say: Callable[[str], None], share: int = 1) -> list[Crash]:
    """Record every story, then be killed at each point, several requests at a time.

    Args:
        site: the whole.
        board: listens to it.
        lanes: how many requests go at once.
        say: takes a line about how it goes.
        share: only each so many-th point, for a quick look.
    """
    points = _without_repeats(point for story in STORIES for point in record(site, board, story))[::share]
    say(f"{len(points)} crash points")
    done = be_killed_at(site, board, points, lanes=lanes)
    say(f"{sum(one.reached for one in done)} reached")
    return done


def be_killed_at(site: Site, board: Board, points: Sequence[Point], *, lanes: int) -> list[Crash]:
    """Go through a story for each of the points, so many at a time; those that were not come by again."""
    left, done = list(points), dict[Point, Crash]()
    for _ in range(_TRIES):
        apps = [site.world.add_app() for _ in left]
        with ThreadPoolExecutor(lanes) as pool:
            tried = list(pool.map(_crash, [site] * len(left), [board] * len(left), apps, left))
        done |= {one.point: one for one in tried}
        left = [point for point in points if not done[point].reached]
        if not left:
            break
    return list(done.values())


def _without_repeats(points: Iterable[Point]) -> list[Point]:
    """What stories have in common is looked at in the first of them."""
    seen: dict[Point, Point] = {}
    for point in points:
        seen.setdefault(replace(point, story=""), point)
    return list(seen.values())


def summary(crashes: Iterable[Crash]) -> dict[str, Any]:
    """Figures of all."""
    done = list(crashes)
    times = sorted(one.seconds for one in done if one.seconds is not None)
    return {
        "points": len(done),
        "reached": sum(one.reached for one in done),
        "looks_not_come_by": [str(one.point) for one in done if not one.reached and one.point.is_look],
        "by_step": dict(Counter(one.point.step for one in done)),
        "bound_seconds": BOUND_SECONDS,
        "longest_seconds": times[-1] if times else None,
        "median_seconds": times[len(times) // 2] if times else None,
    }


def violations(crashes: Sequence[Crash]) -> dict[str, list[str]]:
    """What the points that went wrong say."""
    late = [one for one in crashes if one.seconds is not None and one.seconds > BOUND_SECONDS]
    return {
        "crash_points_are_reached": [str(one.point) for one in crashes if not one.reached and not one.point.is_look],
        "crash_points_converge_in_time": [f"{one.point}: {one.seconds} s" for one in late],
        "crash_points_have_one_proposal_and_one_commit": [
            f"{one.point}: {what}" for one in crashes for what in one.wrong
        ],
    }
