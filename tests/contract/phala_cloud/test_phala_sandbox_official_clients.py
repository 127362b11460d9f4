"""The official JavaScript SDK and CLI run the whole flow against the sandbox."""

import json
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandbox.chain.accounts import DEPLOYER
from sandbox.phala_cloud.control import Control
from tests.support.official_cli import ROOT, OfficialCli
from tests.support.phala_cloud import NEXT_COMPOSE, Json, OnChainCvm, Receiver

pytestmark = [pytest.mark.chain, pytest.mark.node]

SDK_SCRIPT = Path(__file__).with_name("official_sdk.mjs")
FOURTEEN_DAYS = 14 * 24 * 3600


def refused(answer: Json, status: int, code: str) -> bool:
    return (answer["name"], answer["status"], answer["code"]) == ("ResourceError", status, code)


def test_sdk(cvm: OnChainCvm, receiver: Receiver, control: Control):
    hook = control.register_webhook(cvm.team.slug, receiver.url, events=["cvm.update.pending_approval"])
    prepared = cvm.prepare()
    (received,) = receiver.wait_for(1)
    task = {
        "apiUrl": control.api_url,
        "controlUrl": control.base_url,
        "apiKey": cvm.team.api_key,
        "vmUuid": cvm.vm_uuid,
        "app": cvm.app,
        "rpcUrl": cvm.chain.rpc.url,
        "privateKey": f"0x{bytes(DEPLOYER.key).hex()}",
        "clockOffset": control.settings()["clock_offset"],
        "webhook": {"headers": received.headers, "body": received.body.decode(), "secret": hook["secret"]},
    }
    run = subprocess.run(
        ["node", str(SDK_SCRIPT)],
        cwd=ROOT,
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    answers = json.loads(run.stdout)

    assert answers["webhook"]["data"]["commit_token"] == prepared["commit_token"]
    assert answers["info"]["vm_uuid"] == answers["legacy"]["vm_uuid"] == cvm.vm_uuid
    assert answers["info"]["kms_info"]["dstack_app_address"] == cvm.app.lower()
    assert answers["batch"][cvm.vm_uuid]["status"] == "running"
    assert (answers["allowed"]["is_allowed"], answers["appAllowed"]["is_allowed"]) == (True, False)
    assert refused(answers["unknown"], 404, "ERR-03-001")

    first = answers["prepared"]
    assert first["requiresOnChainHash"] is True
    assert first["onchainStatus"]["compose_hash_allowed"] is False
    assert answers["sameHash"] is True
    assert refused(answers["unregistered"], 465, "ERR-01-005")
    assert refused(answers["wrongTransaction"], 467, "ERR-01-007")
    for dead in ("superseded", "expired", "reused"):
        assert refused(answers[dead], 466, "ERR-01-006"), dead
    assert answers["committed"]["status"] == "pending"
    assert answers["watched"]["status"] == answers["runs"]["status"] == "running"
    assert answers["runs"]["compose_hash"] == first["composeHash"]

    assert answers["directHasToken"] is False
    assert refused(answers["unproven"], 468, "ERR-01-008")
    for update in ("dockerComposeUpdate", "scriptUpdate", "envsUpdate"):
        assert answers[update] == "in_progress", update
    assert answers["ownHash"] is True
    last = answers["finally"]
    assert last["compose_file"]["allowed_envs"] == ["DB_URL"]
    assert last["compose_file"]["pre_launch_script"] == "echo héllo\n"
    assert (last["resource"]["vcpu"], last["os"]["name"]) == (2, "dstack-0.5.5")
    assert answers["revision"]["compose_hash"] == last["compose_hash"]
    assert cvm.settle()["environment"] == {"DB_URL": "postgres://x"}
    (accepted,) = control.accepted_commits(cvm.vm_uuid)
    assert accepted["correlation_id"] == answers["committed"]["correlationId"]


Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(cvm: OnChainCvm, tmp_path: Path) -> Cli:
    official = OfficialCli(tmp_path, cvm.team.control.api_url, cvm.team.api_key)

    def run(*arguments: str, target: str = "", compose: str | None = None) -> subprocess.CompletedProcess[str]:
        return official.deploy(target or cvm.vm_uuid, *arguments, compose=compose)

    return run


def test_cli_prepares_and_commits(cvm: OnChainCvm, cli: Cli):
    prepared = json.loads(cli("--prepare-only", compose=NEXT_COMPOSE).stdout)
    assert (prepared["success"], prepared["prepare_only"]) == (True, True)
    bare = prepared["compose_hash"].removeprefix("0x")
    transaction = cvm.register(bare)
    done = cli(
        *("--commit", "--token", prepared["commit_token"]),
        *("--compose-hash", prepared["compose_hash"], "--transaction-hash", transaction),
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    info = cvm.settle()
    assert (info["status"], info["compose_hash"]) == ("running", bare)
    assert cvm.operation(answer["correlation_id"])["status"] == "completed"


def test_cli_is_told_why_a_commit_is_refused(cvm: OnChainCvm, cli: Cli, control: Control):
    superseded = cvm.prepare()
    prepared = cvm.prepare()
    token = prepared["commit_token"]

    def commit(token: str, *more: str) -> str:
        done = cli("--commit", "--token", token, *more)
        assert done.returncode == 1
        return str(json.loads(done.stderr)["error"])

    assert "registration required on-chain" in commit(token)
    cvm.register(prepared["compose_hash"])
    with ThreadPoolExecutor(2) as pool:
        calls = {
            "wrong transaction": pool.submit(commit, token, "--transaction-hash", f"0x{'12' * 32}"),
            "superseded": pool.submit(commit, superseded["commit_token"]),
        }
    assert "Transaction verification failed" in calls["wrong transaction"].result()
    assert "invalid or has expired Run --prepare-only again" in calls["superseded"].result()
    offset = control.settings()["clock_offset"]
    control.settings(clock_offset=offset + FOURTEEN_DAYS + 1)
    try:
        assert "expired" in commit(token)
    finally:
        control.settings(clock_offset=offset)
    assert cli("--commit", "--token", token).returncode == 0
    cvm.settle()
    assert "expired" in commit(token)
    assert len(control.accepted_commits(cvm.vm_uuid)) == 1


def test_cli_says_that_prepare_only_was_applied_without_on_chain_kms(cvm: OnChainCvm, cli: Cli):
    off_chain = cvm.team.off_chain_cvm(name="off-chain")
    done = cli("--prepare-only", target=off_chain["vm_uuid"], compose=NEXT_COMPOSE)
    answer = json.loads(done.stdout)
    assert (answer["success"], answer["prepare_only"]) == (True, False)
    cvm.team.control.wait_idle(off_chain["vm_uuid"])
    (entry,) = cvm.team.control.ledger("update_accepted", off_chain["vm_uuid"])
    assert entry["prepare_only"] is True
