"""Reads: the recorded answers' shapes, every form of identifier, paging, streams, keys."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from eth_keys import KeyAPI
from eth_utils.crypto import keccak

from sandbox.chain.local import LocalChain
from sandbox.phala_cloud.control import Control
from tests.support.phala_cloud import DEVICE, NEXT_COMPOSE, Json, OnChainCvm, Team

pytestmark = pytest.mark.chain

RECORDED: dict[str, Json] = json.loads((Path(__file__).parent / "recorded_answers.json").read_text())


def differences(recorded: object, ours: object, at: str = "") -> Iterator[str]:
    """Members that are recorded but missing here, or of another JSON type. Null may stand for any type."""
    if recorded is None or ours is None:
        return
    numbers = (int, float)
    if type(recorded) is not type(ours) and not (isinstance(recorded, numbers) and isinstance(ours, numbers)):
        yield f"{at}: {type(recorded).__name__} recorded, {type(ours).__name__} here"
    elif isinstance(recorded, dict) and isinstance(ours, dict):
        for name, value in recorded.items():
            if name not in ours:
                yield f"{at}.{name}: missing"
            else:
                yield from differences(value, ours[name], f"{at}.{name}")
    elif isinstance(recorded, list) and isinstance(ours, list) and recorded:
        if not ours:
            yield f"{at}: empty"
        elif at == ".details":
            pairs = ({item["field"]: item["value"] for item in side} for side in (recorded, ours))
            yield from differences(*pairs, at)
            return
        for item in ours:
            yield from differences(recorded[0], item, f"{at}[]")


def assert_like_recorded(name: str, response: httpx.Response) -> None:
    recorded = RECORDED[name]
    assert response.status_code == recorded["status"]
    assert list(differences(recorded["body"], response.json())) == []


def test_the_comparison_itself_finds_differences():
    recorded = {"a": 1, "b": [{"c": "x"}], "d": None}
    assert list(differences(recorded, {"a": 1.5, "b": [{"c": "y"}], "d": 3})) == []
    assert list(differences(recorded, {"a": "1", "b": [{}, {"c": "y"}], "d": 3})) == [
        ".a: int recorded, str here",
        ".b[].c: missing",
    ]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("cvm_info", "{cvm}"),
        ("available_os_images", "{cvm}/available-os-images"),
        ("os_images", "/os-images?page=1&page_size=50&is_dev=false"),
        ("revisions", "{app}/revisions?page=1&page_size=10"),
        ("device_allowlist", "{app}/device-allowlist"),
        ("kms", "/kms/{kms}"),
        ("pubkey", "/kms/{kms}/pubkey/{address}"),
    ],
)
def test_answers_have_the_recorded_shape(cvm: OnChainCvm, name: str, path: str):
    kms = cvm.team.control.cvm(cvm.vm_uuid)["kms_id"]
    address = cvm.app[2:].lower()
    url = path.format(cvm=cvm.path, app=f"/apps/{address}", kms=kms, address=address)
    assert_like_recorded(name, cvm.team.api.get(url))


def test_list_items_have_the_recorded_shape_without_compose_file(cvm: OnChainCvm):
    """The canned list item was made from the detail; the OpenAPI file has no compose_file in lists."""
    listing = cvm.team.api.get("/cvms/paginated", params={"page": 1, "page_size": 2})
    recorded = json.loads(json.dumps(RECORDED["cvm_list"]["body"]))
    assert recorded["items"][0].pop("compose_file")
    assert list(differences(recorded, listing.json())) == []


def test_user_config(team: Team):
    config = {"hostname": "h", "ssh_authorized_keys": ["ssh-ed25519 AAAA"]}
    cvm = team.off_chain_cvm(user_config=json.dumps(config))
    answer = team.api.get(f"/cvms/{cvm['vm_uuid']}/user_config")
    assert_like_recorded("user_config", answer)
    assert answer.json() == config | {"default_gateway_domain": None}
    broken = team.off_chain_cvm(user_config="{oops")
    assert team.api.get(f"/cvms/{broken['vm_uuid']}/user_config").status_code == 502


def test_posted_questions_have_the_recorded_shape(cvm: OnChainCvm):
    api, app = cvm.team.api, f"/apps/{cvm.app}"
    assert_like_recorded("cvm_is_allowed", api.post(f"{cvm.path}/is-allowed", json={}))
    asked = {"compose_hash": "11" * 32, "device_id": DEVICE, "chain_id": 31337}
    assert_like_recorded("app_is_allowed", api.post(f"{app}/is-allowed", json=asked))
    batch = api.post("/status/batch", json={"vm_uuids": [cvm.vm_uuid, "22222222-2222-4222-8222-222222222222"]})
    assert list(batch.json()) == [cvm.vm_uuid]
    recorded = dict(RECORDED["status_batch"])
    (value,) = recorded["body"].values()
    assert list(differences(value, batch.json()[cvm.vm_uuid])) == []
    all_cvms = api.post(f"{app}/cvms/is-allowed", json={}).json()
    assert (all_cvms["is_onchain"], all_cvms["allowed_count"], all_cvms["denied_count"]) == (True, 1, 0)


def test_update_answers_have_the_recorded_shape(cvm: OnChainCvm):
    api = cvm.team.api
    change = {"docker_compose_file": NEXT_COMPOSE}
    assert_like_recorded("hash_required", api.patch(cvm.path, json=change))
    assert_like_recorded("prepared", api.patch(cvm.path, json=change, headers={"X-Prepare-Only": "true"}))
    assert_like_recorded("hash_invalid", cvm.commit("no token"))
    prepared = cvm.prepare()
    transaction = cvm.register(prepared["compose_hash"])
    token = prepared["commit_token"]
    assert_like_recorded("tx_invalid", cvm.commit(token, "", f"0x{'12' * 32}"))
    assert_like_recorded("committed", cvm.commit(token, prepared["compose_hash"], transaction))
    cvm.settle()
    provision = {"name": "", "docker_compose_file": NEXT_COMPOSE}
    assert_like_recorded("provisioned", api.post(f"{cvm.path}/compose_file/provision", json=provision))
    provision["docker_compose_file"] = "services: ["
    assert_like_recorded("compose_invalid", api.post(f"{cvm.path}/compose_file/provision", json=provision))
    flags = {"public_sysinfo": True, "public_logs": True}
    assert_like_recorded("visibility", api.patch(f"{cvm.path}/visibility", json=flags))
    assert_like_recorded("instance_id", api.patch(f"{cvm.path}/instance-id", json={}))
    every = {"missing_only": False}
    assert_like_recorded("instance_ids", api.patch("/cvms/instance-ids", json=every))
    cvm.team.control.hold(cvm.vm_uuid)
    assert_like_recorded("busy", api.patch(cvm.path, json=change))


def test_revision_detail(cvm: OnChainCvm):
    path = f"/apps/app_{cvm.app[2:]}/revisions"
    (revision,) = cvm.team.api.get(path).json()["revisions"]
    detail = cvm.team.api.get(f"{path}/{revision['revision_id']}", params={"raw_compose_file": "true"})
    assert_like_recorded("revision", detail)
    parsed = cvm.team.api.get(f"{path}/{revision['revision_id']}").json()["compose_file"]
    assert parsed == json.loads(detail.json()["compose_file"])
    assert cvm.team.api.get(f"{path}/rev_unknown").status_code == 404


def test_every_form_of_identifier(cvm: OnChainCvm):
    info = cvm.team.api.get(cvm.path).json()
    app = info["app_id"]
    forms = [
        info["vm_uuid"],
        info["vm_uuid"].replace("-", ""),
        info["vm_uuid"].upper(),
        app,
        app.upper(),
        f"app_{app}",
        f"0x{app}",
        f"instance_{info['instance_id']}",
        info["id"],
        info["name"],
    ]
    seen = {form: cvm.team.api.get(f"/cvms/{form}").json().get("vm_uuid") for form in forms}
    assert set(seen.values()) == {cvm.vm_uuid}, seen


def test_ambiguous_identifiers_are_400(cvm: OnChainCvm, chain: LocalChain):
    OnChainCvm.create(cvm.team, chain, app=cvm.app)
    by_app = cvm.team.api.get(f"/cvms/{cvm.app}")
    assert (by_app.status_code, by_app.json()["error_code"]) == (400, "ERR-03-010")
    by_name = cvm.team.api.get("/cvms/my-app")
    assert (by_name.status_code, by_name.json()["error_code"]) == (400, "ERR-03-002")


def test_strangers_see_nothing(cvm: OnChainCvm):
    stranger = Team.create(cvm.team.control)
    for path in (cvm.path, f"{cvm.path}/state", "/cvms/my-app"):
        assert_like_recorded("cvm_not_found", stranger.api.get(path))
    assert stranger.api.get(f"/apps/{cvm.app}/cvms").status_code == 404
    assert stranger.api.get("/cvms/paginated").json()["total"] == 0
    assert stranger.api.patch(cvm.path, json={"vcpu": 2}).status_code == 404
    stranger.api.close()


def test_credentials(cvm: OnChainCvm):
    url = f"{cvm.team.control.api_url}{cvm.path}"
    assert_like_recorded("unauthenticated", httpx.get(url))
    assert httpx.get(url, headers={"X-API-Key": "phak_wrong"}).status_code == 401
    assert httpx.get(url, headers={"Authorization": f"Bearer {cvm.team.api_key}"}).status_code == 200
    second = cvm.team.control.create_api_key(cvm.team.slug)
    assert httpx.get(url, headers={"X-API-Key": second}).status_code == 200


def test_legacy_version_gets_the_flat_record(cvm: OnChainCvm):
    legacy = cvm.team.api.get(cvm.path, headers={"X-Phala-Version": "2025-10-28"})
    assert_like_recorded("visibility", legacy)
    assert legacy.json()["kms_info"]["chain_id"] == 31337


def test_state_has_no_null(cvm: OnChainCvm):
    state = cvm.team.api.get(f"{cvm.path}/state").json()
    assert state["status"] == "running"
    assert None not in state.values()


def test_offline_attestation_has_the_recorded_shape(cvm: OnChainCvm, control: Control):
    prepared = cvm.prepare()
    cvm.register(prepared["compose_hash"])
    control.add_mishap(cvm.vm_uuid, "boot_failure")
    cvm.commit(prepared["commit_token"])
    cvm.settle()
    assert_like_recorded("attestation_offline", cvm.team.api.get(f"{cvm.path}/attestation"))


def events_of(response: httpx.Response) -> list[tuple[str, Json]]:
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in response.text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def test_stream_ends_when_the_target_is_reached(cvm: OnChainCvm):
    prepared = cvm.prepare()
    cvm.register(prepared["compose_hash"])
    cvm.team.control.add_mishap(cvm.vm_uuid, "boot_failure")
    cvm.commit(prepared["commit_token"])
    watched = events_of(cvm.team.api.get(f"{cvm.path}/state", params={"target": "error"}))
    assert [name for name, _ in watched][-2:] == ["state", "complete"]
    assert watched[-2][1]["status"] == "error"
    assert {name for name, _ in watched[:-1]} == {"state"}


def test_stream_times_out(cvm: OnChainCvm):
    watched = events_of(cvm.team.api.get(f"{cvm.path}/state", params={"target": "stopped", "timeout": 10}))
    assert [name for name, _ in watched][-1] == "timeout"
    refused = cvm.team.api.get(f"{cvm.path}/state", params={"target": "stopped", "interval": 4})
    assert refused.status_code == 422


def test_five_streams_at_most(cvm: OnChainCvm):
    endless = {"target": "stopped", "timeout": 600}
    with ExitStack() as open_streams:
        for _ in range(5):
            stream = cvm.team.api.stream("GET", f"{cvm.path}/state", params=endless)
            assert open_streams.enter_context(stream).status_code == 200
        assert cvm.team.api.get(f"{cvm.path}/state", params=endless).status_code == 429
    running = {"target": "running"}
    ends_at = time.monotonic() + 10
    while cvm.team.api.get(f"{cvm.path}/state", params=running).status_code == 429:
        assert time.monotonic() < ends_at


def test_operations_by_pages(cvm: OnChainCvm):
    api, path = cvm.team.api, f"{cvm.path}/operations"
    for vcpu in (2, 3, 4):
        assert api.patch(f"{cvm.path}/resources", json={"vcpu": vcpu}).status_code == 202
        cvm.settle()
    api.patch(f"{cvm.path}/os-image", json={"os_image_name": "dstack-0.5.5"})
    cvm.settle()
    whole = api.get(path).json()
    ids = [item["correlation_id"] for item in whole["items"]]
    assert (len(ids), whole["total"], whole["next_cursor"]) == (4, 4, None)
    assert [item["started_at"] for item in whole["items"]] == sorted(
        (item["started_at"] for item in whole["items"]), reverse=True
    )
    first = api.get(path, params={"limit": 3}).json()
    second = api.get(path, params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [item["correlation_id"] for item in first["items"] + second["items"]] == ids
    assert second["next_cursor"] is None
    resizes = api.get(path, params={"operation_types": ["resize"]}).json()
    assert resizes["total"] == 3
    later = api.get(path, params={"start_time": whole["items"][1]["started_at"]}).json()["items"]
    assert [item["correlation_id"] for item in later] in (ids[:1], ids[:2])  # the filter's text has milliseconds
    assert api.get(path, params={"cursor": "nonsense"}).status_code == 400


def test_env_key_is_signed_by_the_kms(cvm: OnChainCvm, control: Control):
    kms_id = control.cvm(cvm.vm_uuid)["kms_id"]
    kms = control.kms(kms_id)
    by_slug = cvm.team.api.get(f"/kms/{kms['slug']}/pubkey/{cvm.app}").json()
    by_id = cvm.team.api.get(f"/kms/{kms_id}/pubkey/{cvm.app[2:].lower()}").json()
    assert by_slug == by_id
    digest = keccak(b"dstack-env-encrypt-pubkey:" + bytes.fromhex(cvm.app[2:]) + bytes.fromhex(by_id["public_key"]))
    signature = KeyAPI.Signature(bytes.fromhex(by_id["signature"]))
    signer = signature.recover_public_key_from_msg_hash(digest)
    assert signer.to_compressed_bytes().hex() == kms["k256_pubkey"]
    assert cvm.team.api.get(f"/kms/base/pubkey/{cvm.app}").status_code == 404
    assert cvm.team.api.get(f"/kms/{kms_id}/pubkey/1234").status_code == 400


def test_app_kms_info_tells_the_owner(cvm: OnChainCvm):
    info = cvm.team.api.get(f"/apps/{cvm.app}/kms-info").json()
    assert (info["is_onchain_kms"], info["deployer_type"], info["is_contract"]) == (True, "eoa", False)
    owner = cvm.chain.call(cvm.app, "owner()", returns="address")
    assert info["deployer_address"] == owner.lower()
