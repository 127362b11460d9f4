"""Crash points: a worker is killed exactly when something goes over the wire, at everything that ever does.

The points are those of a run without faults, so that none is forgotten. At ``out`` the worker dies and its request goes
on; at ``in`` it dies with the answer in its hands; at ``sent`` the COMMIT does not arrive; at ``acknowledged`` it took
effect, and the worker never hears of it.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sandbox.chain.accounts import OWNERS
from sandbox.polling import wait_for
from sandbox.world import App
from tests.chaos.points import Board, Point, Recorder, Subject, Trap
from tests.chaos.site import Site

BOUND_SECONDS: Final = 60.0
"""From the restart of the worker until everything is as it should be."""
_REACHED_SECONDS: Final = 90.0
_TRIES: Final = 3
"""A point that a poll happens not to come by is gone for again."""


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
