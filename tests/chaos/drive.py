"""Pointed at any deployment: send change requests to it, wait for their ends, and check what must hold in its database.

Faults and approvals are somebody else's: break what you like meanwhile, and let your owners sign.
"""

import argparse
from collections import Counter
from typing import Any

from tests.chaos import invariants, report
from tests.chaos.driver import ENDED, Driver


def add_to(commands: Any) -> None:
    """Add the commands to a parser's."""
    parser = commands.add_parser("drive", help="send requests to a deployment and wait for their ends")
    parser.add_argument("--url", required=True, help="base URL of its API")
    parser.add_argument("--key", required=True, help="API key of scope submit")
    parser.add_argument("--cvm", action="append", required=True, help="a CVM to change; may be repeated")
    parser.add_argument("--compose", required=True, help="path of the compose file to give them")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long the ends may take (%(default)s)")
    parser.add_argument("--dsn", help="its database, to check what must hold there")
    parser = commands.add_parser("check", help="check what must hold in a deployment's database")
    parser.add_argument("--dsn", required=True, help="PostgreSQL URL; read only")


def main(told: argparse.Namespace) -> int:
    """Run one of them; 1 where something did not hold."""
    violations: dict[str, list[str]] = {}
    if told.command == "drive":
        violations |= _drive(told)
    if told.dsn:
        violations |= invariants.check(told.dsn, invariants.ALWAYS)
    print(report.invariants_table(violations))
    return 1 if report.total(violations) else 0


def _drive(told: argparse.Namespace) -> dict[str, list[str]]:
    with open(told.compose, encoding="utf-8") as file:  # noqa: PTH123 - whatever the shell can name
        compose_file = file.read()
    driver = Driver(told.url.rstrip("/"), told.key)
    for cvm in told.cvm:
        driver.submit(cvm, compose_file)
    states: Counter[str] = driver.wait_for_the_ends(told.minutes * 60)
    print(f"{len(driver.submitted)} requests: {dict(states)}")
    return {
        "every_request_was_taken": driver.refused,
        "every_request_ended": [f"{count} are still {state}" for state, count in states.items() if state not in ENDED],
    }
