"""Prepare, register, commit: the documented order of checks, against real contracts."""

import hashlib
import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from sandbox.chain.apps import deploy_dstack_app
from sandbox.chain.local import LocalChain
from sandbox.phala_cloud.control import Control
from tests.support.phala_cloud import COMPOSE, DEVICE, NEXT_COMPOSE, OnChainCvm, Team, details_of

pytestmark = pytest.mark.chain

FOURTEEN_DAYS = 14 * 24 * 3600


def assert_refused(response: httpx.Response, status: int, error_code: str) -> None:
    assert (response.status_code, response.json()["error_code"]) == (status, error_code)
    assert response.reason_phrase == ""


def test_prepare_answers_the_documented_envelope(cvm: OnChainCvm):
    response = cvm.team.api.patch(
        cvm.path, json={"docker_compose_file": NEXT_COMPOSE}, headers={"X-Prepare-Only": "true"}
    )
    assert_refused(response, 465, "ERR-01-005")
    details = response.json()["details"]
    assert [item["field"] for item in details] == [
        "compose_hash",
        "app_id",
        "device_id",
        "kms_info",
        "onchain_status",
        "commit_token",
        "commit_url",
        "api_commit_url",
    ]
    values = details_of(response)
    token, compose_hash = values["commit_token"], values["compose_hash"]
    assert uuid.UUID(token).version == 4
    assert values["app_id"] == cvm.app[2:].lower()
    assert values["device_id"] == DEVICE
    assert values["kms_info"]["chain_id"] == 31337
    assert values["onchain_status"] == {
        "compose_hash_allowed": False,
        "device_id_allowed": True,
        "is_allowed": False,
    }
    base = cvm.team.control.base_url
    assert values["commit_url"] == (
        f"{base}/{cvm.team.slug}/cvms/{cvm.vm_uuid}/confirm-update?token={token}&compose_hash={compose_hash}"
    )
    assert values["api_commit_url"] == f"{base}/api/v1{cvm.path}/commit-update?token={token}"


def test_hash_is_that_of_the_document_that_boots(cvm: OnChainCvm):
    prepared = cvm.prepare(allowed_envs=["A"], public_logs=False)
    transaction = cvm.register(prepared["compose_hash"])
    response = cvm.commit(prepared["commit_token"], prepared["compose_hash"], transaction)
    assert response.status_code == 202
    assert response.json()["status"] == "pending"
    info = cvm.settle()
    assert info["status"] == "running"
    assert info["compose_hash"] == prepared["compose_hash"]
    operation = cvm.operation(response.json()["correlation_id"])
    assert operation["status"] == "completed"
    assert operation["compose_hash"] == prepared["compose_hash"]

    tcb_info = cvm.team.api.get(f"{cvm.path}/attestation").json()["tcb_info"]
    text = tcb_info["app_compose"]
    events = {event["event"]: event["event_payload"] for event in tcb_info["event_log"]}
    assert hashlib.sha256(text.encode()).hexdigest() == events["compose-hash"] == prepared["compose_hash"]
    document = json.loads(text)
    assert document == cvm.team.api.get(f"{cvm.path}/compose_file").json()
    assert document["docker_compose_file"] == NEXT_COMPOSE
    assert (document["allowed_envs"], document["public_logs"]) == (["A"], False)


def test_event_log_replays_to_rtmr3(cvm: OnChainCvm):
    tcb_info = cvm.team.api.get(f"{cvm.path}/attestation").json()["tcb_info"]
    register = bytes(48)
    for event in tcb_info["event_log"]:
        content = event["event_type"].to_bytes(4, "little") + b":" + event["event"].encode() + b":"
        digest = hashlib.sha384(content + bytes.fromhex(event["event_payload"])).digest()
        assert digest.hex() == event["digest"]
        register = hashlib.sha384(register + digest).digest()
    assert register.hex() == tcb_info["rtmr3"]


def test_prepare_changes_nothing_and_commit_goes_through_restarting(cvm: OnChainCvm):
    before = cvm.info["compose_hash"]
    prepared = cvm.prepare()
    seen = cvm.team.control.cvm(cvm.vm_uuid)
    assert (seen["status"], seen["compose_hash"], seen["in_progress"]) == ("running", before, False)
    cvm.register(prepared["compose_hash"])
    assert cvm.commit(prepared["commit_token"]).status_code == 202
    cvm.settle()
    (operation,) = cvm.team.api.get(f"{cvm.path}/operations").json()["items"]
    assert [event["state"] for event in operation["events"]] == ["running", "restarting", "running"]


def test_unregistered_hash_is_465(cvm: OnChainCvm):
    prepared = cvm.prepare()
    assert_refused(cvm.commit(prepared["commit_token"]), 465, "ERR-01-005")
    assert_refused(cvm.commit(prepared["commit_token"], "", "already-registered"), 465, "ERR-01-005")


def test_a_refused_commit_leaves_the_token_usable(cvm: OnChainCvm):
    prepared = cvm.prepare()
    assert cvm.commit(prepared["commit_token"]).status_code == 465
    cvm.register(prepared["compose_hash"])
    assert cvm.commit(prepared["commit_token"]).status_code == 202


@pytest.mark.parametrize("sentinel", ["", "already-registered"])
def test_state_check_alone_suffices(cvm: OnChainCvm, sentinel: str):
    prepared = cvm.prepare()
    cvm.register(prepared["compose_hash"])
    assert cvm.commit(prepared["commit_token"], f"0x{prepared['compose_hash']}", sentinel).status_code == 202


def test_transactions_that_prove_nothing_are_467(cvm: OnChainCvm, chain: LocalChain):
    prepared = cvm.prepare()
    wanted = prepared["compose_hash"]
    other_app = deploy_dstack_app(chain)
    cvm.register(wanted)
    wrong = {
        "another hash": cvm.register("11" * 32),
        "another contract": cvm.transact("addComposeHash(bytes32)", bytes.fromhex(wanted), app=other_app),
        "removed, not added": cvm.transact("removeComposeHash(bytes32)", bytes.fromhex("11" * 32)),
        "unknown": f"0x{'12' * 32}",
        "malformed": "0x1234",
    }
    for what, transaction in wrong.items():
        response = cvm.commit(prepared["commit_token"], wanted, transaction)
        assert (what, response.status_code) == (what, 467)
        assert response.json()["error_code"] == "ERR-01-007"


def test_reverted_transaction_is_467(cvm: OnChainCvm, chain: LocalChain):
    prepared = cvm.prepare()
    stranger = chain.rpc("eth_accounts")[9]
    calldata = bytes.fromhex("dfc77223" + prepared["compose_hash"])
    receipt = chain.send(stranger, cvm.app, calldata, gas=200_000)
    assert int(receipt["status"], 16) == 0
    cvm.register(prepared["compose_hash"])
    response = cvm.commit(prepared["commit_token"], "", receipt["transactionHash"])
    assert_refused(response, 467, "ERR-01-007")


def test_hash_withdrawn_after_its_registration_is_468(cvm: OnChainCvm):
    prepared = cvm.prepare()
    transaction = cvm.register(prepared["compose_hash"])
    cvm.transact("removeComposeHash(bytes32)", bytes.fromhex(prepared["compose_hash"]))
    assert_refused(cvm.commit(prepared["commit_token"], "", transaction), 468, "ERR-01-008")


def test_tokens_that_do_not_count_are_466(cvm: OnChainCvm, chain: LocalChain):
    first = cvm.prepare()
    second = cvm.prepare(COMPOSE + "# other\n")
    cvm.register(first["compose_hash"])
    cvm.register(second["compose_hash"])
    other = OnChainCvm.create(cvm.team, chain, app=cvm.app)
    live = second["commit_token"]
    assert_refused(cvm.commit(first["commit_token"]), 466, "ERR-01-006")  # superseded
    assert_refused(cvm.commit(str(uuid.uuid4())), 466, "ERR-01-006")  # unknown
    assert_refused(cvm.commit(""), 466, "ERR-01-006")
    assert_refused(other.commit(live), 466, "ERR-01-006")  # another CVM's
    assert_refused(cvm.commit(live, first["compose_hash"]), 466, "ERR-01-006")  # another hash
    assert cvm.commit(live).status_code == 202
    cvm.settle()
    assert_refused(cvm.commit(live), 466, "ERR-01-006")  # reused


def test_same_compose_again_gives_the_same_hash_and_a_fresh_token(cvm: OnChainCvm):
    first, second = cvm.prepare(), cvm.prepare()
    assert first["compose_hash"] == second["compose_hash"]
    assert first["commit_token"] != second["commit_token"]
    cvm.register(first["compose_hash"])
    assert cvm.commit(first["commit_token"]).status_code == 466
    assert cvm.commit(second["commit_token"]).status_code == 202


def test_token_dies_when_the_compose_changed_meanwhile(cvm: OnChainCvm):
    prepared = cvm.prepare()
    cvm.register(prepared["compose_hash"])
    other = cvm.team.control.preview_compose(compose={"docker_compose_file": COMPOSE, "allowed_envs": ["X"]})
    cvm.register(other["compose_hash"])
    assert cvm.team.api.patch(cvm.path, json={"allowed_envs": ["X"]}).status_code == 202
    assert cvm.settle()["compose_hash"] == other["compose_hash"]
    assert_refused(cvm.commit(prepared["commit_token"]), 466, "ERR-01-006")


def test_tokens_live_fourteen_days(cvm: OnChainCvm, control: Control):
    prepared = cvm.prepare()
    cvm.register(prepared["compose_hash"])
    offset = control.settings()["clock_offset"]
    try:
        control.advance_clock(FOURTEEN_DAYS + 1)
        assert_refused(cvm.commit(prepared["commit_token"]), 466, "ERR-01-006")
        control.settings(clock_offset=offset + FOURTEEN_DAYS - 60)
        assert cvm.commit(prepared["commit_token"]).status_code == 202
    finally:
        control.settings(clock_offset=offset)


def test_one_token_is_accepted_once_whoever_races(cvm: OnChainCvm):
    prepared = cvm.prepare()
    cvm.register(prepared["compose_hash"])
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(lambda _: cvm.commit(prepared["commit_token"]).status_code, range(8)))
    assert statuses == [202, *[466] * 7]
    cvm.settle()
    assert len(cvm.team.control.accepted_commits(cvm.vm_uuid)) == 1
    assert len(cvm.team.control.ledger("boot", cvm.vm_uuid)) == 1


def test_token_may_be_in_the_query_and_has_metadata(cvm: OnChainCvm):
    prepared = cvm.prepare()
    cvm.register(prepared["compose_hash"])
    metadata = httpx.get(prepared["api_commit_url"])
    assert metadata.status_code == 200
    assert metadata.json()["compose_hash"] == prepared["compose_hash"]
    assert httpx.post(prepared["api_commit_url"]).status_code == 202
    assert httpx.get(prepared["api_commit_url"]).status_code == 466


def test_device_that_is_not_allowed_fails_at_boot_and_not_before(team: Team, chain: LocalChain):
    cvm = OnChainCvm.create(team, chain, device_allowed=False)
    prepared = cvm.prepare()
    assert prepared["onchain_status"] == {
        "compose_hash_allowed": False,
        "device_id_allowed": False,
        "is_allowed": False,
    }
    cvm.register(prepared["compose_hash"])
    accepted = cvm.commit(prepared["commit_token"])
    assert accepted.status_code == 202
    assert cvm.settle()["status"] == "error"
    operation = cvm.operation(accepted.json()["correlation_id"])
    assert operation["status"] == "failed"
    assert "Device not allowed" in operation["error_message"]
    assert "Device not allowed" in team.api.get(f"{cvm.path}/state").json()["boot_error"]
    assert team.api.get(f"{cvm.path}/attestation").json()["is_online"] is False


def test_any_device_counts_as_allowed(team: Team, chain: LocalChain):
    cvm = OnChainCvm.create(team, chain, device_allowed=False)
    cvm.transact("setAllowAnyDevice(bool)", True)
    prepared = cvm.prepare()
    assert prepared["onchain_status"]["device_id_allowed"] is True
    cvm.register(prepared["compose_hash"])
    assert cvm.commit(prepared["commit_token"]).status_code == 202
    assert cvm.settle()["status"] == "running"


def test_a_cvm_whose_first_hash_is_not_allowed_does_not_boot(team: Team, chain: LocalChain):
    app = deploy_dstack_app(chain, device=bytes.fromhex(DEVICE))
    cvm = OnChainCvm.create(team, chain, app=app, initially_allowed=False)
    assert cvm.settle()["boot_error"] == "Boot denied by KMS: Compose hash not allowed"


def test_a_lagging_view_gives_465_and_467_shortly_after_the_execution(cvm: OnChainCvm, control: Control):
    prepared = cvm.prepare()
    transaction = cvm.register(prepared["compose_hash"])
    try:
        control.lag(1)
        assert_refused(cvm.commit(prepared["commit_token"], "", transaction), 465, "ERR-01-005")
        control.lag(0, receipt_blocks=1)
        assert_refused(cvm.commit(prepared["commit_token"], "", transaction), 467, "ERR-01-007")
        assert cvm.chain.rpc("evm_mine") == "0x0"
        control.lag(1)
        assert cvm.commit(prepared["commit_token"], "", transaction).status_code == 202
    finally:
        control.lag(0)


def test_another_operation_makes_everything_409_and_spends_nothing(cvm: OnChainCvm):
    prepared = cvm.prepare()
    cvm.register(prepared["compose_hash"])
    cvm.team.control.hold(cvm.vm_uuid)
    update = {"docker_compose_file": NEXT_COMPOSE}
    for response in (
        cvm.commit(prepared["commit_token"]),
        cvm.team.api.patch(cvm.path, json=update),
        cvm.team.api.patch(cvm.path, json=update, headers={"X-Prepare-Only": "true"}),
    ):
        assert response.status_code == 409
        assert response.json() == {"detail": "Another operation in progress"}
    cvm.team.control.release(cvm.vm_uuid)
    cvm.settle()
    assert cvm.commit(prepared["commit_token"]).status_code == 202
