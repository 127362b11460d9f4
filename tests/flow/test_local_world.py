"""The demo and the sandbox as commands: what they promise, and that nothing stays behind."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest


def _start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")}
    return subprocess.Popen(
        [sys.executable, "-m", "service", *arguments],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**inherited, "TMPDIR": str(cwd)},
    )


def _read_until(process: subprocess.Popen[str], pattern: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if re.search(pattern, line):
            return seen
    pytest.fail(f"{pattern} never came:\n{seen}")


def _children_in(directory: Path) -> list[str]:
    """Command lines of processes that still use the directory."""
    commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [command for command in commands if str(directory) in command]


def test_the_demo_ends_with_a_summary_of_what_is_true(tmp_path: Path):
    summary_path = tmp_path / "out" / "demo.json"
    with _start("demo", "--summary", str(summary_path), cwd=tmp_path) as demo:
        output, _ = demo.communicate(timeout=150)
    assert demo.returncode == 0, output
    summary = json.loads(summary_path.read_text())
    assert summary["completed"] is True
    assert summary["change_request"]["state"] == "completed"
    hashes = summary["compose_hash"]
    assert hashes["approved"] == hashes["running"]
    assert hashes["on_chain"] is True
    hooks = summary["webhooks"]
    assert hooks["expected"] == hooks["received"] == hooks["verified"] >= 7
    assert summary["safe_tx_hash"] != summary["transaction_hash"]
    for event in ("received", "prepared", "proposed", "approval_added", "executed", "registered", "committed"):
        assert event in output
    assert _children_in(tmp_path) == []


def test_the_demo_stops_everything_on_ctrl_c(tmp_path: Path):
    with _start("demo", "--summary", str(tmp_path / "demo.json"), cwd=tmp_path) as demo:
        _read_until(demo, "accepted")
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, output
    assert _children_in(tmp_path) == []
    assert not (tmp_path / "demo.json").exists()


def test_the_sandbox_says_how_its_owners_approve(tmp_path: Path):
    with _start("sandbox", "--directory", str(tmp_path / "sandbox"), cwd=tmp_path) as sandbox:
        output = _read_until(sandbox, "Ctrl-C stops it")
        told = {
            name: re.search(rf"^{name} {{2,}}(\S.*)$", output, flags=re.MULTILINE)
            for name in ("Countersign API", "  Authorization", "CVM", r"EVM \(chain 31337\)")
        }
        assert len({found.start(1) - found.start() for found in told.values() if found}) == 1
        address, key, cvm, _ = (found[1] for found in told.values() if found)
        command = re.search(r"^ +(\S+ -m sandbox\.approve .*) <approval.safe_tx_hash>$", output, flags=re.MULTILINE)
        assert command
        with httpx.Client(base_url=address, headers={"Authorization": key}, timeout=60) as api:
            body = {"cvm_id": cvm, "patch": {"docker_compose_file": "services: {web: {image: nginx}}"}}
            url = "/v1/change-requests/" + api.post("/v1/change-requests", json=body).json()["id"]
            request = api.get(url).json()
            while request["state"] not in {"completed", "failed"}:
                if request["state"] == "proposed" and not request["approval"]["confirmations"]:
                    approve = [*shlex.split(command[1]), request["approval"]["safe_tx_hash"]]
                    subprocess.run(approve, cwd=Path(__file__).parents[2], check=True, timeout=30)
                request = api.get(url, params={"wait": 30, "state": request["state"]}).json()
            assert request["state"] == "completed", request["reason"]
        sandbox.send_signal(signal.SIGTERM)
        sandbox.communicate(timeout=60)


def test_the_sandbox_keeps_its_state_over_a_restart(tmp_path: Path):
    directory = str(tmp_path / "sandbox")
    seen = []
    for _ in range(2):
        with _start("sandbox", "--directory", directory, cwd=tmp_path) as sandbox:
            output = _read_until(sandbox, "Ctrl-C stops it")
            address = re.search(r"Countersign API\s+(\S+)", output)
            key = re.search(r"Authorization\s+(Bearer \S+)", output)
            cvm = re.search(r"CVM\s+([0-9a-f-]{36})", output)
            assert address
            assert key
            assert cvm
            api = httpx.Client(base_url=address[1], headers={"Authorization": key[1]}, timeout=30)
            with api:
                if not seen:
                    body = {"cvm_id": cvm[1], "patch": {"docker_compose_file": "services: {web: {image: nginx}}"}}
                    assert api.post("/v1/change-requests", json=body).status_code == 202
                listed = api.get("/v1/change-requests").json()["items"]
            seen.append((cvm[1], [request["id"] for request in listed]))
            sandbox.send_signal(signal.SIGTERM)
            sandbox.communicate(timeout=60)
    assert seen[0] == seen[1]
    assert len(seen[0][1]) == 1
    assert _children_in(tmp_path) == []
