"""What the sandbox does wrong when it is told to."""

import re
import time

import httpx
import pytest

from sandbox.phala_cloud.control import Control
from tests.support.phala_cloud import NEXT_COMPOSE, OnChainCvm, Team

pytestmark = pytest.mark.chain

COMMIT = "/cvms/*/commit-update"


def test_lost_answer_has_its_effect_once(cvm: OnChainCvm, control: Control):
    prepared = cvm.prepare()
    cvm.register(prepared["compose_hash"])
    control.drop_after("POST", COMMIT)
    with pytest.raises(httpx.RemoteProtocolError):
        cvm.commit(prepared["commit_token"])
    assert cvm.commit(prepared["commit_token"]).status_code == 466
    cvm.settle()
    (accepted,) = control.accepted_commits(cvm.vm_uuid)
    assert cvm.operation(accepted["correlation_id"])["status"] == "completed"


def test_connection_dropped_before_leaves_no_trace(cvm: OnChainCvm, control: Control):
    prepared = cvm.prepare()
    cvm.register(prepared["compose_hash"])
    control.drop_before("POST", COMMIT)
    with pytest.raises(httpx.RemoteProtocolError):
        cvm.commit(prepared["commit_token"])
    assert control.accepted_commits(cvm.vm_uuid) == []
    assert cvm.commit(prepared["commit_token"]).status_code == 202


def test_prepare_with_a_lost_answer_kills_the_earlier_token(cvm: OnChainCvm, control: Control):
    first = cvm.prepare()
    control.drop_after("PATCH", "/cvms/*")
    with pytest.raises(httpx.RemoteProtocolError):
        cvm.prepare()
    cvm.register(first["compose_hash"])
    assert cvm.commit(first["commit_token"]).status_code == 466


def test_a_page_of_html_instead_of_the_answer(cvm: OnChainCvm, control: Control):
    prepared = cvm.prepare()
    cvm.register(prepared["compose_hash"])
    control.answer("POST", COMMIT, status=502, body="<html>Bad Gateway</html>", after=True)
    response = cvm.commit(prepared["commit_token"])
    assert (response.status_code, response.text) == (502, "<html>Bad Gateway</html>")
    assert response.headers["content-type"] == "text/html"
    assert len(control.accepted_commits(cvm.vm_uuid)) == 1


def test_faults_match_method_and_path_and_count_down(team: Team, control: Control):
    path = f"/cvms/{team.off_chain_cvm()['vm_uuid']}"
    control.fail("GET", "/cvms/*/state", status=429, times=2, retry_after=7)
    control.answer("GET", "/cvms/*/attestation", body="")
    control.answer("GET", "/cvms/*/user_config", body="{oops", content_type="application/json")
    assert team.api.get(path).status_code == 200
    answers = [team.api.get(f"{path}/state") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["retry-after"] == "7"
    assert team.api.get(f"{path}/attestation").content == b""
    assert team.api.get(f"{path}/user_config").text == "{oops"
    assert team.api.get(f"{path}/attestation").json()["is_online"] is True


def test_latency(team: Team, control: Control):
    path = f"/cvms/{team.off_chain_cvm()['vm_uuid']}/state"
    control.slow_down("GET", "/cvms/*/state", 0.3)
    started = time.monotonic()
    assert team.api.get(path).status_code == 200
    assert time.monotonic() - started >= 0.3
    control.slow_down("GET", "/cvms/*/state", 1)
    with pytest.raises(httpx.ReadTimeout):
        team.api.get(path, timeout=0.1)


def test_answer_that_comes_too_late_had_its_effect(cvm: OnChainCvm, control: Control):
    control.slow_down("PATCH", "/cvms/*", 1, after=True)
    with pytest.raises(httpx.ReadTimeout):
        cvm.team.api.patch(cvm.path, json={"vcpu": 2}, timeout=0.2)
    assert cvm.settle()["resource"]["vcpu"] == 2
    control.slow_down("GET", "/cvms/*/state", 0.05, after=True)
    assert cvm.team.api.get(f"{cvm.path}/state").json()["status"] == "running"


def test_operation_that_fails_leaves_the_old_compose_running(cvm: OnChainCvm, control: Control):
    prepared = cvm.prepare()
    cvm.register(prepared["compose_hash"])
    control.add_mishap(cvm.vm_uuid, "operation_failure", "node out of disk")
    correlation_id = cvm.commit(prepared["commit_token"]).json()["correlation_id"]
    info = cvm.settle()
    assert (info["status"], info["running_compose_hash"]) == ("running", cvm.info["compose_hash"])
    operation = cvm.operation(correlation_id)
    assert (operation["status"], operation["error_message"]) == ("failed", "node out of disk")


def test_boot_that_fails_on_demand(cvm: OnChainCvm, control: Control):
    prepared = cvm.prepare()
    cvm.register(prepared["compose_hash"])
    control.add_mishap(cvm.vm_uuid, "boot_failure", "kernel panic")
    cvm.commit(prepared["commit_token"])
    info = cvm.settle()
    assert (info["status"], info["boot_error"], info["running_compose_hash"]) == ("error", "kernel panic", None)


def test_cvm_that_runs_something_else(cvm: OnChainCvm, control: Control):
    prepared = cvm.prepare()
    cvm.register(prepared["compose_hash"])
    control.add_mishap(cvm.vm_uuid, "other_compose")
    cvm.commit(prepared["commit_token"])
    info = cvm.settle()
    assert info["compose_hash"] == prepared["compose_hash"]
    attestation = cvm.team.api.get(f"{cvm.path}/attestation").json()
    events = {event["event"]: event["event_payload"] for event in attestation["tcb_info"]["event_log"]}
    assert events["compose-hash"] == info["running_compose_hash"] != prepared["compose_hash"]


def test_operations_take_as_long_as_they_are_told(team: Team, control: Control):
    cvm = team.off_chain_cvm()
    path = f"/cvms/{cvm['vm_uuid']}"
    before = control.settings()
    try:
        control.settings(accept_seconds=3600, restart_seconds=3600)
        assert team.api.patch(path, json={"docker_compose_file": NEXT_COMPOSE}).status_code == 202
        accepted = team.api.get(path).json()
        assert (accepted["status"], accepted["in_progress"]) == ("running", True)
        assert accepted["progress"]["target"] == "running"
        assert accepted["compose_hash"] == cvm["compose_hash"]
        control.advance_clock(3601)
        ends_at = time.monotonic() + 5
        while (seen := team.api.get(path).json())["status"] != "restarting":
            assert time.monotonic() < ends_at, seen
        assert seen["compose_hash"] != cvm["compose_hash"]
        assert team.api.get(f"{path}/attestation").json()["is_online"] is False
        control.advance_clock(3601)
        assert control.wait_idle(cvm["vm_uuid"])["status"] == "running"
    finally:
        control.settings(**{name: before[name] for name in ("accept_seconds", "restart_seconds")})


def test_settings_refuse_nonsense(control: Control):
    for changes in ({"accept_second": 1}, {"restart_seconds": -1}):
        with pytest.raises(httpx.HTTPStatusError) as refused:
            control.settings(**changes)
        assert refused.value.response.status_code == 422


def test_ledger_knows_what_happened_and_no_token(cvm: OnChainCvm, control: Control):
    prepared = cvm.prepare()
    cvm.commit(prepared["commit_token"])
    cvm.register(prepared["compose_hash"])
    cvm.commit(prepared["commit_token"])
    cvm.settle()
    entries = control.ledger(vm_uuid=cvm.vm_uuid)
    assert [(entry["kind"], entry.get("accepted")) for entry in entries] == [
        ("prepare", None),
        ("commit", False),
        ("commit", True),
        ("boot", None),
    ]
    assert entries[1]["status"] == 465
    assert prepared["commit_token"] not in str(control.ledger())


def test_every_answer_carries_a_request_id(team: Team):
    ids = {team.api.get("/cvms/nobody").headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)
