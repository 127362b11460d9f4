"""A constant load for minutes, and what it does to the memory of each process."""

import argparse
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import psutil

from tests.chaos import invariants, report
from tests.chaos.driver import Driver
from tests.chaos.owners import Owners
from tests.chaos.site import KINDS, Site
from tests.support.stack import compose

SUMMARY: Final = Path("var/soak.json")
_SAMPLE_SECONDS: Final = 5.0
_WARM_UP: Final = 0.3
"""The part of the time after which memory counts: pools and caches fill at first."""
_END_SECONDS: Final = 120.0
_APPS, _CVMS = 20, 10
_MIB: Final = 1024 * 1024


def add_to(commands: Any) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser("soak", help="a constant load, and the memory of each process")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (%(default)s)")
    parser.add_argument("--per-minute", type=float, default=60.0, help="change requests a minute (%(default)s)")
    parser.add_argument("--most", type=float, default=60.0, help="MiB an hour that a process may grow (%(default)s)")


def main(told: argparse.Namespace) -> int:
    """Run it; 1 where a process grew too fast, a request did not end, or an invariant was violated."""
    count = max(1, round(told.minutes * told.per_minute))
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in KINDS}
    with tempfile.TemporaryDirectory(prefix="soak-") as name, Site(Path(name), more_safes=_APPS) as site:
        site.add_apps(_APPS, _CVMS)
        driver = Driver(site.deployment.url, site.deployment.api_key)
        began = time.monotonic()
        stop = threading.Event()
        with Owners(site.world, lambda: {app.owner for app in site.apps}), ThreadPoolExecutor(2) as pool:
            sampling = pool.submit(_sample, site, samples, began, stop)
            _load(site, driver, count, told.minutes * 60, began)
            ends = driver.wait_for_the_ends(_END_SECONDS)
            stop.set()
            sampling.result()
        violations = invariants.check(site.dsn, invariants.ALWAYS)
    violations["requests_completed"] = [f"{n} are {state}" for state, n in ends.items() if state != "completed"]
    violations["every_request_was_taken"] = driver.refused
    figures = {name: _figures(found, told.minutes * 60) for name, found in samples.items()}
    print(f"{'process':<10} {'first':>8} {'last':>8} {'most':>8} {'MiB/hour':>9}")
    for name, one in figures.items():
        print(f"{name:<10} {one['first_mib']:>8} {one['last_mib']:>8} {one['most_mib']:>8} {one['mib_per_hour']:>9}")
    violations["memory_is_flat"] = [
        f"{name} grows by {one['mib_per_hour']} MiB an hour"
        for name, one in figures.items()
        if one["mib_per_hour"] > told.most
    ]
    print(report.invariants_table(violations))
    total = report.total(violations)
    report.write(
        SUMMARY,
        {"minutes": told.minutes, "requests": count, "states": dict(ends), "memory": figures, "violations": total},
    )
    return 1 if total else 0


def _load(site: Site, driver: Driver, count: int, seconds: float, began: float) -> None:
    """One request after the other, at a constant rate, each CVM in its turn."""
    cvms = site.cvms
    with ThreadPoolExecutor(4) as pool:
        for number in range(count):
            threading.Event().wait(max(0.0, began + seconds * number / count - time.monotonic()))
            pool.submit(driver.submit, cvms[number % len(cvms)], compose(f"soak {number // len(cvms)}"))


def _sample(site: Site, samples: dict[str, list[tuple[float, float]]], began: float, stop: threading.Event) -> None:
    while not stop.wait(_SAMPLE_SECONDS):
        for name, found in samples.items():
            resident = psutil.Process(site.process(name).pid).memory_info().rss / _MIB
            found.append((time.monotonic() - began, resident))


def _figures(found: list[tuple[float, float]], seconds: float) -> dict[str, float]:
    """MiB at the beginning, at the end, at most, and the slope after the warm-up."""
    warm = [one for one in found if seconds * _WARM_UP <= one[0] <= seconds] or found
    slope = statistics.linear_regression(*zip(*warm, strict=True)).slope * 3600 if len(warm) > 1 else 0.0
    sizes = [size for _, size in found]
    return {
        "first_mib": round(sizes[0], 1),
        "last_mib": round(sizes[-1], 1),
        "most_mib": round(max(sizes), 1),
        "mib_per_hour": round(slope, 1),
    }
