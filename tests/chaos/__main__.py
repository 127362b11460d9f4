"""Nothing lost, nothing twice: ``python -m tests.chaos``.

Without a command everything: a storm of random faults, every crash point, the scenarios. ``--help`` has the rest.
"""

import argparse
import json
import secrets
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.chaos import crashes, drive, invariants, report, soak, storm
from tests.chaos.site import Site

APPS_OF_STORM: Final = 10
"""CVMs of one app share an approval."""
_SAFES_OF_STORM: Final = 10


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--seed", type=int, help="of the storm: the same one brings about the same faults (default: random)"
    )
    parser.add_argument("--requests", type=int, default=300, help="change requests in the storm (%(default)s)")
    parser.add_argument("--faults", type=int, default=120, help="faults in the storm (%(default)s)")
    parser.add_argument("--lanes", type=int, default=10, help="crash points at once (%(default)s)")
    parser.add_argument("--share", type=int, default=1, help="only each so many-th crash point (%(default)s)")
    parser.add_argument("--only", choices=("storm", "crashes", "scenarios"), help="one part instead of all")
    commands = parser.add_subparsers(dest="command")
    soak.add_to(commands)
    drive.add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; 1 where something did not hold."""
    told = _parser().parse_args(arguments)
    if told.command == "soak":
        return soak.main(told)
    if told.command in {"drive", "check"}:
        return drive.main(told)
    return chaos(told)


def chaos(told: argparse.Namespace) -> int:
    """The whole proof."""
    seed = told.seed if told.seed is not None else secrets.randbelow(1_000_000)
    print(f"seed {seed}: make chaos SEED={seed} brings about the same faults", flush=True)
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {line}", flush=True)

    summary: dict[str, Any] = {"seed": seed, "requests": 0, "faults": 0, "violations": 0}
    held: dict[str, list[str]] = {}
    if told.only in {None, "storm"}:
        held |= _storm(told, seed, summary, say)
    if told.only in {None, "crashes"}:
        held |= _crashes(told, summary, say)
    if told.only in {None, "scenarios"}:
        held |= _scenarios(summary, say)
    print(report.invariants_table(held), flush=True)
    summary |= {
        "violations": report.total(held),
        "violated": {name: found for name, found in held.items() if found},
        "invariants_held": sorted(name for name, found in held.items() if not found),
        "seconds": round(time.monotonic() - began),
    }
    report.write(report.SUMMARY, summary)
    say(f"{summary['requests']} requests, {summary['faults']} faults, {summary['violations']} violations")
    return 1 if summary["violations"] else 0


def _storm(told: argparse.Namespace, seed: int, summary: dict[str, Any], say: storm.Say) -> dict[str, list[str]]:
    with tempfile.TemporaryDirectory(prefix="chaos-") as name, Site(Path(name), more_safes=_SAFES_OF_STORM) as site:
        cvms = -(-told.requests // APPS_OF_STORM)
        site.add_apps(cvms, APPS_OF_STORM)
        done = storm.weather(site, seed, told.requests, told.faults, say)
    print(report.faults_table((fault.target, fault.kind) for fault in done.faults), flush=True)
    for failed in done.failed_faults:
        say(f"could not be brought about: {failed}")
    summary |= {
        "requests": done.taken,
        "faults": len(done.faults),
        "states": dict(done.states),
        "storm": done.figures,
        "faults_not_brought_about": done.failed_faults,
    }
    return done.violations


def _crashes(told: argparse.Namespace, summary: dict[str, Any], say: storm.Say) -> dict[str, list[str]]:
    with tempfile.TemporaryDirectory(prefix="chaos-") as name, Site(Path(name), more_safes=1000) as site:
        with crashes.Board(site) as board:
            done = crashes.run(site, board, lanes=told.lanes, say=say, share=told.share)
        found = crashes.violations(done)
        # What nobody approved, because its worker never came to the point, may still wait.
        after = invariants.check(site.dsn, invariants.ALWAYS)
    summary["crash_points"] = crashes.summary(done)
    say(f"crash points: {json.dumps(summary['crash_points'])}")
    return found | {f"after_crashes_{name}": lines for name, lines in after.items()}


def _scenarios(summary: dict[str, Any], say: storm.Say) -> dict[str, list[str]]:
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        junit = Path(name) / "junit.xml"
        # Two sites: most of the time a scenario waits for what it brought about.
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--chaos", "tests/chaos", f"--junitxml={junit}"]
        code = subprocess.run(command, check=False).returncode
        suite = ET.parse(junit).getroot().find("testsuite")  # noqa: S314 - written by our own pytest
    if suite is None:
        raise RuntimeError("pytest wrote no report")
    names = [
        case.attrib["name"] for case in suite if case.find("failure") is not None or case.find("error") is not None
    ]
    summary["scenarios"] = {"run": int(suite.attrib["tests"]), "failed": names}
    say(f"scenarios: {summary['scenarios']}")
    return {"scenarios_end_as_they_should": names or ([f"pytest ended with {code}"] if code else [])}


if __name__ == "__main__":
    sys.exit(main())
