"""The Makefile's own behaviour: reads as help, installs only what changed, says at once what is missing."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]
PINS = ("requirements/dev.lock", "pyproject.toml", "package.json", "package-lock.json", ".npmrc")
STAMPS = (".venv/.ready", "node_modules/.ready")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of which nothing is installed."""
    shutil.copy(PROJECT / "Makefile", tmp_path)
    for pin in PINS:
        (tmp_path / pin).parent.mkdir(exist_ok=True)
        (tmp_path / pin).touch()
    return tmp_path


def make(project: Path, *arguments: str, path: str = os.defpath) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path}
    return subprocess.run(
        ["make", *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def tool(project: Path, name: str, script: str) -> None:
    place = project / "tools" / name
    place.parent.mkdir(exist_ok=True)
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(0o755)


def test_without_a_target_it_describes_them_all(project: Path):
    described = re.findall(r"^  make (\S+) +\S", make(project).stdout, flags=re.MULTILINE)
    declared = re.search(r"^\.PHONY: (.+)$", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE)

    assert declared
    assert described == declared[1].split()


def test_nothing_is_done_when_nothing_changed(project: Path):
    for stamp in STAMPS:
        (project / stamp).parent.mkdir()
        (project / stamp).touch()

    assert make(project, "--question", "setup").returncode == 0


@pytest.mark.parametrize("pin", PINS)
def test_a_changed_pin_is_installed_before_anything_else(project: Path, pin: str):
    for stamp in STAMPS:
        (project / stamp).parent.mkdir()
        (project / stamp).touch()
    future = (project / STAMPS[1]).stat().st_mtime + 5
    os.utime(project / pin, (future, future))

    wanted = make(project, "--dry-run", "test").stdout

    assert ("pip install" in wanted, "npm install" in wanted) == (pin in PINS[:2], pin in PINS[2:])


@pytest.mark.parametrize(
    ("python", "node", "message"),
    [
        ("exit 1", "exit 0", "Python 3.11 or newer is needed"),
        (f'exec {sys.executable} "$@"', "exit 1", "Node.js 20 or newer is needed"),
        (f'exec {sys.executable} "$@"', None, "Node.js 20 or newer is needed"),
        (f'exec {sys.executable} "$@"', f'exec {shutil.which("node")} "$@"', "npm is needed"),
    ],
)
def test_what_is_missing_is_said_in_one_line(project: Path, python: str, node: str | None, message: str):
    tool(project, "python3", python)
    if node is not None:
        tool(project, "node", node)
    for name in ("make", "sh"):
        (project / "tools" / name).symlink_to(shutil.which(name) or name)

    run = make(project, "setup", path=str(project / "tools"))

    ours = [line for line in run.stderr.splitlines() if not line.startswith("make: ***")]
    assert run.returncode == 2
    assert len(ours) == 1
    assert message in ours[0]
    assert not (project / ".venv").exists()


def test_a_bench_without_a_name_is_refused(project: Path):
    for stamp in STAMPS:
        (project / stamp).parent.mkdir()
        (project / stamp).touch()
    (project / "bench").mkdir()
    (project / "bench" / "watch.py").touch()

    run = make(project, "bench")

    assert run.returncode == 2
    assert "BENCH=: watch" in run.stderr
