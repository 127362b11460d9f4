"""Updates that need no token: the direct path, the one-purpose endpoints, and what is refused."""

import json
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.support.phala_cloud import COMPOSE, NEXT_COMPOSE, Json, OnChainCvm, Team, details_of

pytestmark = pytest.mark.chain

PREPARE_ONLY = {"X-Prepare-Only": "true"}


def proof(compose_hash: str, transaction: str) -> dict[str, str]:
    return {"X-Compose-Hash": compose_hash, "X-Transaction-Hash": transaction}


def test_direct_path_recalls_the_change_by_its_hash(cvm: OnChainCvm):
    api = cvm.team.api
    phase_1 = api.patch(cvm.path, json={"docker_compose_file": NEXT_COMPOSE})
    assert phase_1.status_code == 465
    details = details_of(phase_1)
    assert list(details) == ["compose_hash", "app_id", "device_id", "kms_info"]
    wanted = details["compose_hash"]
    not_yet = api.patch(cvm.path, json={}, headers=proof(wanted, f"0x{'12' * 32}"))
    assert (not_yet.status_code, not_yet.json()["error_code"]) == (468, "ERR-01-008")
    transaction = cvm.register(wanted)
    never_asked = api.patch(cvm.path, json={}, headers=proof("11" * 32, transaction))
    assert (never_asked.status_code, never_asked.json()["error_code"]) == (466, "ERR-01-006")
    unproven = api.patch(cvm.path, json={}, headers=proof(wanted, f"0x{'12' * 32}"))
    assert (unproven.status_code, unproven.json()["error_code"]) == (467, "ERR-01-007")
    assert api.patch(cvm.path, json={}, headers=proof(wanted, transaction)).status_code == 202
    assert cvm.settle()["running_compose_hash"] == wanted


@pytest.mark.parametrize("headers", [{}, PREPARE_ONLY])
def test_a_patch_that_moves_no_hash_is_applied_at_once(cvm: OnChainCvm, headers: dict[str, str]):
    response = cvm.team.api.patch(cvm.path, json={"vcpu": 4, "memory": 8192}, headers=headers)
    assert response.status_code == 202
    assert list(response.json()) == ["correlation_id"]
    info = cvm.settle()
    assert info["resource"]["vcpu"] == 4
    assert info["compose_hash"] == cvm.info["compose_hash"]


def test_prepare_only_is_no_dry_run_without_on_chain_kms(team: Team):
    cvm = team.off_chain_cvm()
    path = f"/cvms/{cvm['vm_uuid']}"
    response = team.api.patch(path, json={"docker_compose_file": NEXT_COMPOSE}, headers=PREPARE_ONLY)
    assert response.status_code == 202
    team.control.wait_idle(cvm["vm_uuid"])
    assert team.api.get(f"{path}/docker-compose.yml").text == NEXT_COMPOSE
    (entry,) = team.control.ledger("update_accepted", cvm["vm_uuid"])
    assert entry["prepare_only"] is True


def test_update_with_a_registered_hash_needs_no_second_phase(cvm: OnChainCvm):
    wanted = details_of(cvm.team.api.patch(cvm.path, json={"docker_compose_file": NEXT_COMPOSE}))
    cvm.register(wanted["compose_hash"])
    assert cvm.team.api.patch(cvm.path, json={"docker_compose_file": NEXT_COMPOSE}).status_code == 202
    assert cvm.settle()["running_compose_hash"] == wanted["compose_hash"]


def test_prepare_of_a_registered_hash_still_gives_a_token(cvm: OnChainCvm):
    cvm.register(cvm.prepare()["compose_hash"])
    prepared = cvm.prepare()
    assert prepared["onchain_status"]["is_allowed"] is True
    assert cvm.commit(prepared["commit_token"], "", "already-registered").status_code == 202


@pytest.mark.parametrize(
    ("body", "status", "error_code"),
    [
        ({}, 400, "ERR-01-002"),
        ({"docker_compose_file": None}, 400, "ERR-01-002"),
        ({"docker_compose_file": ""}, 400, "ERR-01-002"),
        ({"docker_compose_file": "services: ["}, 422, "ERR-01-003"),
        ({"docker_compose_file": "just text"}, 422, "ERR-01-003"),
        ({"docker_compose_file": "services: []"}, 422, "ERR-01-003"),
        ({"docker_compose_file": COMPOSE + "#" * 204_800}, 422, "ERR-01-003"),
        ({"image": "dstack-9.9.9"}, 400, "ERR-02-008"),
        ({"encrypted_env": "no hex"}, 400, "ERR-01-002"),
    ],
)
def test_patches_that_are_refused(team: Team, body: Json, status: int, error_code: str):
    cvm = team.off_chain_cvm()
    response = team.api.patch(f"/cvms/{cvm['vm_uuid']}", json=body)
    assert (response.status_code, response.json()["error_code"]) == (status, error_code)


@pytest.mark.parametrize(
    "body",
    [{"vcpu": "many"}, {"shutdown_timeout": 9}, {"shutdown_timeout": 1201}, {"allowed_envs": "A"}, {"gpus": 1}],
)
def test_patches_of_the_wrong_type_are_422_with_their_place(team: Team, body: Json):
    cvm = team.off_chain_cvm()
    response = team.api.patch(f"/cvms/{cvm['vm_uuid']}", json=body)
    assert response.status_code == 422
    (issue,) = response.json()["detail"]
    assert issue["loc"] == ["body", next(iter(body))]
    assert {"msg", "type", "input"} <= set(issue)


@pytest.mark.parametrize(
    ("endpoint", "content_type", "text", "member"),
    [
        ("docker-compose", "text/yaml", NEXT_COMPOSE, "docker_compose_file"),
        ("pre-launch-script", "text/plain", '#!/bin/sh\necho "héllo"\n', "pre_launch_script"),
    ],
)
def test_text_endpoints_repeat_the_body_in_phase_2(
    cvm: OnChainCvm, endpoint: str, content_type: str, text: str, member: str
):
    def patch(**headers: str) -> httpx.Response:
        return cvm.team.api.patch(
            f"{cvm.path}/{endpoint}",
            content=text.encode(),
            headers={"Content-Type": content_type} | {name.replace("_", "-"): value for name, value in headers.items()},
        )

    phase_1 = patch()
    assert phase_1.status_code == 465
    wanted = details_of(phase_1)["compose_hash"]
    phase_2 = patch(X_Compose_Hash=wanted, X_Transaction_Hash=cvm.register(wanted))
    assert phase_2.status_code == 202
    assert phase_2.json()["status"] == "in_progress"
    assert cvm.operation(phase_2.json()["correlation_id"])["compose_hash"] == wanted
    assert cvm.settle()["compose_file"][member] == text


def test_an_empty_script_comes_without_a_body(team: Team):
    cvm = team.off_chain_cvm(compose={"pre_launch_script": "true"})
    path = f"/cvms/{cvm['vm_uuid']}/pre-launch-script"
    assert team.api.patch(path, headers={"Content-Type": "text/plain"}).status_code == 202
    team.control.wait_idle(cvm["vm_uuid"])
    assert team.api.get(path).text == ""


def encrypt(public_key: str, environment: dict[str, str]) -> str:
    """The documented format: ephemeral key, IV, ciphertext with tag."""
    ephemeral = X25519PrivateKey.generate()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(public_key)))
    items = [{"key": key, "value": value} for key, value in environment.items()]
    text = json.dumps({"env": items}, separators=(",", ":"))
    iv = bytes(range(12))
    return (ephemeral.public_key().public_bytes_raw() + iv + AESGCM(shared).encrypt(iv, text.encode(), None)).hex()


def environment_key(cvm: OnChainCvm) -> str:
    kms_id = cvm.team.control.cvm(cvm.vm_uuid)["kms_id"]
    answer: dict[str, Any] = cvm.team.api.get(f"/kms/{kms_id}/pubkey/{cvm.app}").json()
    return str(answer["public_key"])


def test_environment_lands_with_the_commit(cvm: OnChainCvm):
    secret = encrypt(environment_key(cvm), {"DB_URL": "postgres://x"})
    prepared = cvm.prepare(allowed_envs=["DB_URL"], encrypted_env=secret)
    assert cvm.team.control.cvm(cvm.vm_uuid)["environment"] is None
    cvm.register(prepared["compose_hash"])
    assert cvm.commit(prepared["commit_token"]).status_code == 202
    assert cvm.settle()["environment"] == {"DB_URL": "postgres://x"}


def test_envs_need_a_registration_only_if_their_keys_change(cvm: OnChainCvm):
    body: Json = {"encrypted_env": encrypt(environment_key(cvm), {"A": "1"}), "env_keys": ["A"]}
    phase_1 = cvm.team.api.patch(f"{cvm.path}/envs", json=body)
    assert phase_1.status_code == 465
    wanted = details_of(phase_1)["compose_hash"]
    body |= {"compose_hash": wanted, "transaction_hash": cvm.register(wanted)}
    phase_2 = cvm.team.api.patch(f"{cvm.path}/envs", json=body)
    assert (phase_2.status_code, phase_2.json()["allowed_envs_changed"]) == (202, True)
    assert cvm.settle()["environment"] == {"A": "1"}
    again = {"encrypted_env": encrypt(environment_key(cvm), {"A": "2"}), "env_keys": ["A"]}
    at_once = cvm.team.api.patch(f"{cvm.path}/envs", json=again)
    assert (at_once.status_code, at_once.json()["allowed_envs_changed"]) == (202, False)
    assert cvm.settle()["environment"] == {"A": "2"}


@pytest.mark.parametrize("update_at_provision", [True, False])
def test_two_step_update_boots_only_if_both_steps_agree(cvm: OnChainCvm, update_at_provision: bool):
    """The trap that cost production outages: the commit is accepted, the boot is refused."""
    api = cvm.team.api
    compose = {"name": "", "docker_compose_file": NEXT_COMPOSE, "allowed_envs": ["A"]}
    provisioned = api.post(
        f"{cvm.path}/compose_file/provision", json=compose | {"update_env_vars": update_at_provision}
    ).json()
    assert provisioned["compose_hash_registered"] is False
    commit = {"compose_hash": provisioned["compose_hash"], "env_keys": ["A"], "update_env_vars": True}
    assert api.patch(f"{cvm.path}/compose_file", json=commit).status_code == 468
    cvm.register(provisioned["compose_hash"])
    assert api.patch(f"{cvm.path}/compose_file", json=commit).status_code == 202
    info = cvm.settle()
    assert info["status"] == ("running" if update_at_provision else "error")
    assert (info["compose_hash"] == provisioned["compose_hash"]) is update_at_provision
    assert api.patch(f"{cvm.path}/compose_file", json=commit).status_code == 400


def test_a_compose_with_an_ambiguous_hash_is_refused(team: Team):
    path = f"/cvms/{team.off_chain_cvm()['vm_uuid']}/compose_file/provision"
    body = {"name": "", "docker_compose_file": NEXT_COMPOSE, "x": {"constructor": {}}}
    refused = team.api.post(path, json=body)
    assert (refused.status_code, refused.json()["error_code"]) == (422, "ERR-01-003")


def test_compose_file_in_one_step_must_match_its_hash(team: Team):
    cvm = team.off_chain_cvm()
    path = f"/cvms/{cvm['vm_uuid']}/compose_file"
    document = cvm["compose_file"] | {"docker_compose_file": NEXT_COMPOSE}
    wanted = team.control.preview_compose(compose={"docker_compose_file": NEXT_COMPOSE})["compose_hash"]
    assert team.api.post(path, json={"compose_file": document, "compose_hash": "11" * 32}).status_code == 400
    assert team.api.post(path, json={"compose_file": document, "compose_hash": wanted}).status_code == 202
    assert team.control.wait_idle(cvm["vm_uuid"])["running_compose_hash"] == wanted


def test_one_purpose_endpoints(team: Team):
    cvm = team.off_chain_cvm()
    path, settle = f"/cvms/{cvm['vm_uuid']}", lambda: team.control.wait_idle(cvm["vm_uuid"])
    assert team.api.patch(f"{path}/os-image", json={"os_image_name": "dstack-0.5.5"}).status_code == 202
    assert settle()["os"]["version"] == "0.5.5"
    assert team.api.patch(f"{path}/os-image", json={"os_image_name": "dstack-0"}).status_code == 400
    assert team.api.patch(f"{path}/resources", json={"id": "x", "vcpu": 2}).status_code == 202
    assert settle()["resource"]["vcpu"] == 2
    assert team.api.patch(f"{path}/listed", json={"listed": True}).json()["listed"] is True
    shown = team.api.patch(f"{path}/visibility", json={"public_sysinfo": False, "public_logs": True})
    assert (shown.status_code, shown.json()["public_sysinfo"]) == (200, False)
    assert settle()["public_sysinfo"] is False


def test_visibility_of_an_on_chain_cvm_needs_a_registration(cvm: OnChainCvm):
    unchanged = {"public_sysinfo": True, "public_logs": True}
    assert cvm.team.api.patch(f"{cvm.path}/visibility", json=unchanged).status_code == 200
    changed = unchanged | {"public_logs": False}
    assert cvm.team.api.patch(f"{cvm.path}/visibility", json=changed).status_code == 465
    assert cvm.settle()["public_logs"] is True


def test_instance_id_is_backfilled_and_never_minted(team: Team):
    cvm = team.off_chain_cvm(instance_id_recorded=False)
    path = f"/cvms/{cvm['vm_uuid']}/instance-id"
    dry = team.api.patch(path, json={"dry_run": True}).json()
    assert (dry["status"], dry["old_instance_id"]) == ("updated", None)
    assert team.control.cvm(cvm["vm_uuid"])["instance_id"] is None
    updated = team.api.patch(path, json={}).json()
    assert updated["new_instance_id"] == dry["new_instance_id"]
    assert team.api.patch(path, json={}).json()["status"] == "unchanged"
    other = team.off_chain_cvm(instance_id_recorded=False)
    batch = team.api.patch("/cvms/instance-ids", json={}).json()
    assert (batch["total"], batch["updated"]) == (1, 1)
    assert [item["identifier"] for item in batch["items"]] == [other["vm_uuid"]]
    assert team.api.patch("/cvms/instance-ids", json={"ids": []}).status_code == 422


def test_pending_updates_carry_no_token(cvm: OnChainCvm):
    prepared = cvm.prepare()
    listing = cvm.team.api.get(f"/apps/{cvm.app}/pending-updates")
    item = {
        "vm_uuid": cvm.vm_uuid,
        "compose_hash": prepared["compose_hash"],
        "on_chain": False,
        "instance_name": "my-app",
    }
    assert listing.json() == {"items": [item]}
    cvm.register(prepared["compose_hash"])
    assert cvm.team.api.get(f"/apps/{cvm.app}/pending-updates").json() == {"items": [item | {"on_chain": True}]}
    preview = cvm.team.api.get(
        f"/apps/{cvm.app}/pending-updates/{cvm.vm_uuid}/{prepared['compose_hash']}/preview"
    ).json()
    assert (preview["current_docker_compose"], preview["pending_docker_compose"]) == (COMPOSE, NEXT_COMPOSE)
    cvm.commit(prepared["commit_token"])
    cvm.settle()
    assert cvm.team.api.get(f"/apps/{cvm.app}/pending-updates").json() == {"items": []}
