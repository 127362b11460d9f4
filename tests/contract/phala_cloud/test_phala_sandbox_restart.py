"""The sandbox's state survives its restart, whatever was under way."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.chain.local import LocalChain
from sandbox.phala_cloud.control import Control
from sandbox.phala_cloud.server import running
from tests.support.phala_cloud import OnChainCvm, Receiver, Team

pytestmark = pytest.mark.chain


def reopen(team: Team, control: Control) -> Team:
    """The same workspace at the sandbox's new address."""
    team.api.base_url = control.api_url
    return Team(control, team.slug, team.api_key, team.api)


def test_everything_survives(tmp_path: Path, chain: LocalChain, receiver: Receiver, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG, logger="sandbox")
    caplog.set_level(logging.DEBUG, logger="uvicorn")
    database = tmp_path / "phala.sqlite3"
    rpc_url = chain.rpc.url
    with running(database, rpc_url=rpc_url) as url, Control(url) as control:
        team = Team.create(control)
        cvm = OnChainCvm.create(team, chain)
        control.register_webhook(team.slug, receiver.url)
        receiver.statuses = [500]
        prepared = cvm.prepare()
        receiver.wait_for(1)
        cvm.register(prepared["compose_hash"])
        control.settings(accept_seconds=3600)
        control.fail("GET", "/cvms/*/state", status=418)
        correlation_id = cvm.commit(prepared["commit_token"]).json()["correlation_id"]
    with running(database, rpc_url=rpc_url) as url, Control(url) as control:
        team = reopen(team, control)
        cvm = OnChainCvm(team, chain, cvm.app, cvm.info)
        assert team.api.get(f"{cvm.path}/state").status_code == 418
        assert cvm.operation(correlation_id)["status"] == "in_progress"
        assert cvm.commit(prepared["commit_token"]).status_code == 466
        control.advance_clock(3600)
        assert cvm.settle()["running_compose_hash"] == prepared["compose_hash"]
        assert cvm.operation(correlation_id)["status"] == "completed"
        assert receiver.wait_for(2)[0].body == receiver.received[1].body
        assert len(control.accepted_commits(cvm.vm_uuid)) == 1
    team.api.close()
    assert prepared["commit_token"] not in caplog.text
    assert team.api_key not in caplog.text


def test_a_killed_process_loses_nothing_and_logs_no_token(tmp_path: Path, chain: LocalChain):
    database, log = tmp_path / "phala.sqlite3", tmp_path / "log"
    command = [sys.executable, "-m", "sandbox.phala_cloud.server"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*command, "--database", str(database), "--rpc-url", chain.rpc.url],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    with process, Control(process.stdout.readline().strip()) as control:
        try:
            team = Team.create(control)
            cvm = OnChainCvm.create(team, chain)
            prepared = cvm.prepare()
            cvm.register(prepared["compose_hash"])
            assert team.api.get(prepared["api_commit_url"]).status_code == 200
            control.settings(accept_seconds=3600)
            correlation_id = cvm.commit(prepared["commit_token"]).json()["correlation_id"]
        finally:
            process.kill()
    with running(database, rpc_url=chain.rpc.url) as url, Control(url) as control:
        team = reopen(team, control)
        control.advance_clock(3600)
        cvm = OnChainCvm(team, chain, cvm.app, cvm.info)
        assert cvm.settle()["running_compose_hash"] == prepared["compose_hash"]
        assert cvm.operation(correlation_id)["status"] == "completed"
    team.api.close()
    logged = log.read_text()
    assert "commit-update -> 202" in logged
    assert prepared["commit_token"] not in logged


def test_without_a_chain_updates_are_500_and_a_boot_waits(tmp_path: Path, chain: LocalChain):
    database = tmp_path / "phala.sqlite3"
    with running(database, rpc_url=chain.rpc.url) as url, Control(url) as control:
        team = Team.create(control)
        cvm = OnChainCvm.create(team, chain)
        prepared = cvm.prepare()
        cvm.register(prepared["compose_hash"])
        control.settings(accept_seconds=0, restart_seconds=3600)
        assert cvm.commit(prepared["commit_token"]).status_code == 202
    with running(database, rpc_url="http://127.0.0.1:9") as url, Control(url) as control:
        team = reopen(team, control)
        other = team.control.create_cvm(team.slug, app_id=cvm.app)
        update = team.api.patch(f"/cvms/{other['vm_uuid']}", json={"allowed_envs": ["A"]})
        assert update.status_code == 500
        assert update.json() == {"detail": "KMS configuration or RPC error"}
        control.advance_clock(3600)
        with pytest.raises(TimeoutError):
            control.wait_idle(cvm.vm_uuid, seconds=1.0)
        assert control.cvm(cvm.vm_uuid)["status"] == "restarting"
    with running(database, rpc_url=chain.rpc.url) as url, Control(url) as control:
        assert control.wait_idle(cvm.vm_uuid)["status"] == "running"
    team.api.close()
