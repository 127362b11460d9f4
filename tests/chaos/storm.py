"""Many change requests through many random faults, and what held afterwards."""

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Self

import httpx
import psycopg

from sandbox.polling import wait_for
from sandbox.processes import ProcessError
from tests.chaos import invariants, ledgers
from tests.chaos.driver import Driver
from tests.chaos.faults import Fault, broken, plan
from tests.chaos.owners import Owners
from tests.chaos.site import Site
from tests.chaos.wire import WireEvent
from tests.support.stack import compose

CANCELLED_OF_100: Final = 6
REFUSED_APPS_OF_100: Final = 5
_HURRY_EVERY_SECONDS: Final = 3.0
_CONVERGE_SECONDS: Final = 300.0
_HEAD_EVERY_SECONDS: Final = 0.2
_REFUSED_TO_START: Final = {2, -1}
"""As they should, while what they need is away: they are started again."""
_TOKEN: Final = re.compile(rb"commit_token.{1,40}?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")

Say = Callable[[str], None]


@dataclass(slots=True)
class Storm:
    """What one run of it did.

    Attributes:
        taken: how many requests were accepted.
        faults: those of the plan that were brought about.
        failed_faults: those that could not be, and why.
        states: how many requests ended how.
        violations: of each invariant.
        figures: of interest beside.
    """

    seed: int
    taken: int = 0
    faults: list[Fault] = field(default_factory=list)
    failed_faults: list[str] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    violations: dict[str, list[str]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)


class Watcher:
    """Notes how the chain's head grows, and every commit token that passes by on the wire."""

    def __init__(self, site: Site) -> None:
        """Take the site."""
        self.heads: list[tuple[float, int]] = []
        self.tokens: set[str] = set()
        self._site = site
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher")

    def __enter__(self) -> Self:
        self._site.proxies["phala"].listen_in(self._hear)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._site.proxies["phala"].listen_in(None)
        self._stop.set()
        self._thread.join()

    def _hear(self, event: WireEvent) -> bool:
        self.tokens |= {token.decode() for token in _TOKEN.findall(event.content)}
        return False

    def _run(self) -> None:
        while not self._stop.wait(_HEAD_EVERY_SECONDS):
            head = int(self._site.world.anvil.rpc("eth_blockNumber"), 16)
            self.heads.append((time.time(), head))


def weather(site: Site, seed: int, requests: int, faults: int, say: Say) -> Storm:
    """Send the requests through the faults, let everything calm down, and look at what there is.

    Args:
        site: with at least as many CVMs as requests.
        seed: of the plan, and of who is cancelled and refused.
        requests: how many.
        faults: how many.
        say: takes a line about how it goes.
    """
    storm = Storm(seed)
    driver = Driver(site.api_url, site.deployment.api_key)
    chance = random.Random(seed)
    planned = plan(seed, faults)
    lasts = max((fault.at + fault.seconds for fault in planned), default=0.0)
    say(f"{requests} requests, {faults} faults over {lasts:.0f} s")
    began = time.monotonic()
    with Watcher(site) as watcher, Owners(site.world, lambda: {app.owner for app in site.apps}) as owners:
        for app in site.apps:
            if chance.randrange(100) < REFUSED_APPS_OF_100:
                owners.refuse(app.address)
        with ThreadPoolExecutor(len(planned) + 2) as pool:
            load = pool.submit(_submit_all, site, driver, chance, requests, lasts)
            breaking = [pool.submit(_bring_about, site, storm, fault, began) for fault in planned]
            for one in breaking:
                one.result()
            site.heal()
            load.result()
        say(f"faults over after {time.monotonic() - began:.0f} s: {dict(Counter(driver.states().values()))}")
        healed = time.monotonic()
        storm.states = _calm_down(site, driver)
        converged = time.monotonic() - healed
        say(f"{dict(storm.states)} after {converged:.0f} s more")
        time_of_all = time.monotonic() - began
        storm.violations = invariants.check(site.dsn)
        storm.violations |= ledgers.check(ledgers.gather(site, tuple(watcher.heads), frozenset(watcher.tokens)))
    storm.taken = len(driver.submitted)
    missing = requests - storm.taken
    storm.violations["every_request_was_taken"] = driver.refused or [f"{missing} were not"] * bool(missing)
    ended = [one for one in site.exits if one[1] not in _REFUSED_TO_START]
    storm.violations["processes_end_only_when_told"] = [
        f"{name} ended with {code}: {said}" for name, code, said in ended
    ]
    storm.figures = {
        "seconds": round(time_of_all),
        "converged_after_seconds": round(converged, 1),
        "calls_made_again": driver.repeated,
        "executed_by_owners": owners.executed,
        "owners_tried_again": len(owners.troubles),
        "tokens_on_the_wire": len(watcher.tokens),
        "events": site.rows("SELECT count(*) FROM events")[0][0],
        "exits_nobody_asked_for": [list(one) for one in site.exits],
    }
    return storm


def _submit_all(site: Site, driver: Driver, chance: random.Random, count: int, lasts: float) -> None:
    """Evenly over the storm, and cancel some a moment later."""
    cvms = site.cvms[:count]
    chance.shuffle(cvms)
    began = time.monotonic()
    chosen = [chance.randrange(100) < CANCELLED_OF_100 for _ in cvms]
    with ThreadPoolExecutor(8) as pool:

        def submit(number: int) -> None:
            _until(began + lasts * number / count)
            request_id = driver.submit(cvms[number], compose("storm"))
            if request_id is not None and chosen[number]:
                driver.cancel(request_id)

        list(pool.map(submit, range(len(cvms))))


def _until(moment: float) -> None:
    """Wait for a moment of the plan: time is what it is about."""
    threading.Event().wait(max(0.0, moment - time.monotonic()))


def _bring_about(site: Site, storm: Storm, fault: Fault, began: float) -> None:
    _until(began + fault.at)
    try:
        with broken(site, fault):
            _until(time.monotonic() + fault.seconds)
    except (ProcessError, httpx.HTTPError, psycopg.Error, OSError, KeyError) as error:
        storm.failed_faults.append(f"{fault}: {type(error).__name__}: {error}"[:300])
    else:
        storm.faults.append(fault)


def _calm_down(site: Site, driver: Driver) -> Counter[str]:
    """Wait until nothing is due, shifting long waits to now; how the requests ended."""
    hurried = time.monotonic()

    def at_rest() -> bool:
        nonlocal hurried
        if time.monotonic() - hurried > _HURRY_EVERY_SECONDS:
            hurried = time.monotonic()
            site.hurry()
        return not any(site.at_work())

    wait_for(at_rest, _CONVERGE_SECONDS, every=0.5)
    return Counter(driver.states().values())
