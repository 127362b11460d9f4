"""The Phala adapter against the Phala Cloud sandbox, whose app contracts are on a real anvil."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from sandbox.anvil import Anvil
from sandbox.chain.local import LocalChain
from sandbox.jsonrpc import JsonRpc
from sandbox.phala_cloud.control import Control
from sandbox.phala_cloud.server import running
from service.adapters.phala import PhalaAdapter
from service.domain.errors import (
    Busy,
    NotFound,
    NotVisibleYet,
    Refused,
    TokenDead,
    Unauthorized,
    Unreachable,
)
from service.domain.phala_facts import AppliedAtOnce, OperationStatus, Prepared, Running
from service.domain.reasons import Reason
from service.phala import PhalaCloud
from tests.support.phala_cloud import DEVICE, NEXT_COMPOSE, OnChainCvm, Team

PATCH = {"docker_compose_file": NEXT_COMPOSE}
UUID = "7d444840-9dc0-41d1-b245-5ffdce74fad2"
TOKEN = SecretStr("11111111-2222-4333-8444-555555555555")
HASH, TRANSACTION = "0x" + "9f" * 32, "0x" + "aa" * 32


@pytest.fixture(scope="module")
def node() -> Iterator[LocalChain]:
    with Anvil() as anvil:
        rpc = JsonRpc(anvil.rpc_url)
        yield LocalChain(rpc)
        rpc.close()


@pytest.fixture(scope="module")
def control(node: LocalChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    database = tmp_path_factory.mktemp("phala") / "phala.sqlite3"
    with running(database, rpc_url=node.rpc.url) as url, Control(url) as control:
        control.settings(accept_seconds=0.02, restart_seconds=0.05)
        yield control


@pytest.fixture
def cvm(control: Control, node: LocalChain) -> Iterator[OnChainCvm]:
    team = Team.create(control)
    yield OnChainCvm.create(team, node)
    team.api.close()
    control.clear_faults()


@pytest.fixture
def phala(control: Control, cvm: OnChainCvm) -> Iterator[PhalaAdapter]:
    adapter = PhalaAdapter(PhalaCloud(api_key=cvm.team.api_key, base_url=control.api_url, timeout=10))
    yield adapter
    adapter.close()


def prepare(phala: PhalaAdapter, cvm: OnChainCvm) -> Prepared:
    prepared = phala.prepare(cvm.vm_uuid, PATCH)
    assert isinstance(prepared, Prepared)
    return prepared


@pytest.mark.chain
def test_a_cvm_by_any_identifier(phala: PhalaAdapter, cvm: OnChainCvm):
    by_uuid = phala.cvm(cvm.vm_uuid)
    assert (by_uuid.vm_uuid, by_uuid.app_contract, by_uuid.chain_id) == (cvm.vm_uuid, cvm.app, 31337)
    assert (by_uuid.device_id, by_uuid.status) == ("0x" + DEVICE, "running")
    assert by_uuid.compose_hash == "0x" + cvm.info["compose_hash"]
    for name in (cvm.vm_uuid.replace("-", ""), cvm.app, cvm.app[2:].lower(), cvm.info["name"], cvm.info["id"]):
        assert phala.cvm(str(name)) == by_uuid


@pytest.mark.chain
def test_a_cvm_without_on_chain_kms_has_no_contract(phala: PhalaAdapter, cvm: OnChainCvm):
    found = phala.cvm(cvm.team.off_chain_cvm()["vm_uuid"])
    assert (found.app_contract, found.chain_id) == (None, None)
    assert isinstance(phala.prepare(found.vm_uuid, PATCH), AppliedAtOnce)


@pytest.mark.chain
def test_who_is_not_there_or_not_allowed(control: Control, phala: PhalaAdapter, cvm: OnChainCvm):
    with pytest.raises(NotFound):
        phala.cvm(UUID)
    with pytest.raises(Refused):
        phala.cvm("..")
    stranger = PhalaAdapter(PhalaCloud(api_key="phak_wrong", base_url=control.api_url))
    with pytest.raises(Unauthorized) as no:
        stranger.cvm(cvm.vm_uuid)
    assert no.value.reason is Reason.PHALA_UNAUTHORIZED
    stranger.close()


@pytest.mark.chain
def test_the_whole_way(phala: PhalaAdapter, cvm: OnChainCvm):
    started = datetime.now(UTC)
    prepared = prepare(phala, cvm)
    assert (prepared.app_contract, prepared.device_id, prepared.chain_id) == (cvm.app, "0x" + DEVICE, 31337)
    assert prepared.commit_token.get_secret_value() not in repr(prepared)
    with pytest.raises(NotVisibleYet):  # 465
        phala.commit(cvm.vm_uuid, prepared.commit_token, prepared.compose_hash, TRANSACTION)
    assert phala.operations(cvm.vm_uuid, started) == []

    transaction = cvm.register(prepared.compose_hash[2:])
    with pytest.raises(NotVisibleYet):  # 467: not that transaction
        phala.commit(cvm.vm_uuid, prepared.commit_token, prepared.compose_hash, TRANSACTION)
    correlation_id = phala.commit(cvm.vm_uuid, prepared.commit_token, prepared.compose_hash, transaction)
    with pytest.raises((Busy, TokenDead)):  # a second commit
        phala.commit(cvm.vm_uuid, prepared.commit_token, prepared.compose_hash, transaction)
    cvm.settle()
    with pytest.raises(TokenDead):  # spent
        phala.commit(cvm.vm_uuid, prepared.commit_token, prepared.compose_hash, transaction)

    (operation,) = phala.operations(cvm.vm_uuid, started)
    assert (operation.correlation_id, operation.status) == (correlation_id, OperationStatus.COMPLETED)
    assert operation.compose_hash == prepared.compose_hash
    assert operation.is_update
    assert phala.operations(cvm.vm_uuid, operation.started_at) == [operation]
    assert phala.operations(cvm.vm_uuid, operation.started_at + timedelta(milliseconds=1)) == []
    assert phala.running(cvm.vm_uuid) == Running(prepared.compose_hash, prepared.compose_hash, "running")


@pytest.mark.chain
def test_the_sentinel_instead_of_a_transaction(phala: PhalaAdapter, cvm: OnChainCvm):
    prepared = prepare(phala, cvm)
    cvm.register(prepared.compose_hash[2:])
    assert phala.commit(cvm.vm_uuid, prepared.commit_token, prepared.compose_hash, "already-registered")


@pytest.mark.chain
def test_operations_come_newest_first_and_tell_failures(phala: PhalaAdapter, control: Control, cvm: OnChainCvm):
    started = datetime.now(UTC)
    transaction = cvm.register(prepare(phala, cvm).compose_hash[2:])
    for mishap in ("operation_failure", None):
        if mishap:
            control.add_mishap(cvm.vm_uuid, mishap, "the node\nis on fire")
        prepared = prepare(phala, cvm)
        phala.commit(cvm.vm_uuid, prepared.commit_token, prepared.compose_hash, transaction)
        cvm.settle()
    completed, failed = phala.operations(cvm.vm_uuid, started)
    assert (failed.status, completed.status) == (OperationStatus.FAILED, OperationStatus.COMPLETED)
    assert failed.error == "the node is on fire"
    assert completed.error is None


@pytest.mark.chain
def test_a_newer_prepare_kills_the_token(phala: PhalaAdapter, cvm: OnChainCvm):
    first, second = prepare(phala, cvm), prepare(phala, cvm)
    transaction = cvm.register(first.compose_hash[2:])
    assert first.compose_hash == second.compose_hash
    with pytest.raises(TokenDead) as dead:
        phala.commit(cvm.vm_uuid, first.commit_token, first.compose_hash, transaction)
    assert first.commit_token.get_secret_value() not in dead.value.detail
    assert phala.commit(cvm.vm_uuid, second.commit_token, second.compose_hash, transaction)


@pytest.mark.chain
def test_a_busy_cvm(phala: PhalaAdapter, control: Control, cvm: OnChainCvm):
    control.hold(cvm.vm_uuid)
    with pytest.raises(Busy):
        phala.prepare(cvm.vm_uuid, PATCH)
    control.release(cvm.vm_uuid)
    assert isinstance(phala.prepare(cvm.vm_uuid, PATCH), Prepared)


@pytest.mark.chain
def test_a_patch_phala_refuses(phala: PhalaAdapter, cvm: OnChainCvm):
    for patch in ({"docker_compose_file": "services: [unclosed"}, {"name": "other-cvm"}, {"id": UUID}):
        with pytest.raises(Refused) as no:
            phala.prepare(cvm.vm_uuid, patch)
        assert no.value.reason is Reason.PREPARE_REFUSED


@pytest.mark.chain
def test_a_lost_answer_to_a_commit_leaves_the_outcome_unknown(phala: PhalaAdapter, control: Control, cvm: OnChainCvm):
    prepared = prepare(phala, cvm)
    transaction = cvm.register(prepared.compose_hash[2:])
    control.drop_after("POST", "/cvms/*/commit-update")
    with pytest.raises(Unreachable) as lost:
        phala.commit(cvm.vm_uuid, prepared.commit_token, prepared.compose_hash, transaction)
    assert lost.value.outcome_unknown
    assert len(control.accepted_commits(cvm.vm_uuid)) == 1


@pytest.mark.chain
def test_a_private_attestation_is_no_fault_but_a_failing_one_is(phala: PhalaAdapter, control: Control, cvm: OnChainCvm):
    hash_now = "0x" + cvm.info["compose_hash"]
    control.answer("GET", "/cvms/*/attestation", status=403, content_type="application/json", body='{"detail": "no"}')
    assert phala.running(cvm.vm_uuid) == Running(None, hash_now, "running")
    control.fail("GET", "/cvms/*/attestation", 503, times=2, retry_after=7)
    with pytest.raises(Unreachable) as fault:
        phala.running(cvm.vm_uuid)
    assert fault.value.retry_after == 7
    assert phala.running(cvm.vm_uuid) == Running(hash_now, hash_now, "running")
