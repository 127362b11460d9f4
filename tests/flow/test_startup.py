"""A fault of the deployment stops a process at once, with one clear line."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.stack import Stack


def _start(environment: dict[str, str], command: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")}
    return subprocess.run(
        [sys.executable, "-m", "service", command],
        env={**ours, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _refused(environment: dict[str, str], command: str) -> str:
    done = _start(environment, command)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("countersign: ")
    return lines[0]


@pytest.mark.fault(
    "chain", "An RPC endpoint serves another chain", "no process starts: one line, exit code 2", "at the start"
)
@pytest.mark.parametrize("command", ["worker", "watch"])
def test_an_endpoint_that_answers_another_chain_id(stack: Stack, command: str):
    environment = dict(stack.deployment.environment)
    chains = json.loads(environment["COUNTERSIGN_CHAINS"])
    environment["COUNTERSIGN_CHAINS"] = json.dumps({"8453": chains["31337"]})
    assert "31337" in _refused(environment, command)


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        ("serve", "COUNTERSIGN_DATABASE_URL"),
        ("serve", "COUNTERSIGN_ENCRYPTION_KEYS"),
        ("worker", "COUNTERSIGN_PROPOSER_KEY"),
        ("worker", "COUNTERSIGN_REDIS_URL"),
        ("beat", "COUNTERSIGN_REDIS_URL"),
        ("watch", "COUNTERSIGN_FINGERPRINT_KEY"),
    ],
)
def test_a_missing_secret(stack: Stack, command: str, variable: str):
    environment = dict(stack.deployment.environment)
    del environment[variable]
    assert variable in _refused(environment, command)


@pytest.mark.parametrize("command", ["serve", "worker", "watch"])
def test_a_database_that_is_not_migrated(stack: Stack, command: str):
    environment = dict(stack.deployment.environment)
    environment["COUNTERSIGN_DATABASE_URL"] = stack.empty_database()
    assert "countersign migrate" in _refused(environment, command)


def test_a_value_that_makes_no_sense(stack: Stack):
    environment = {**stack.deployment.environment, "COUNTERSIGN_API_PORT": "eighty"}
    assert "COUNTERSIGN_API_PORT" in _refused(environment, "serve")


def test_a_database_that_does_not_answer(stack: Stack):
    environment = {**stack.deployment.environment, "COUNTERSIGN_DATABASE_URL": "postgresql://u:p4ss@127.0.0.1:1/x"}
    line = _refused(environment, "serve")
    assert "COUNTERSIGN_DATABASE_URL" in line
    assert "p4ss" not in line
