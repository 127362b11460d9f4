"""The whole client against a running Phala Cloud sandbox with a real chain behind it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from sandbox.anvil import Anvil
from sandbox.chain.local import LocalChain
from sandbox.jsonrpc import JsonRpc
from sandbox.phala_cloud.control import Control
from sandbox.phala_cloud.server import running
from service.phala import PhalaCloud, compose_hash, errors
from service.phala.env_encryption import encrypt_env
from service.phala.models.updates import PatchApplied, PatchPrepared, PreconditionRequired
from tests.support.phala_cloud import NEXT_COMPOSE, OnChainCvm, Team

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalChain, Control]]:
    database = tmp_path_factory.mktemp("phala") / "phala.sqlite3"
    with Anvil() as anvil, running(database, rpc_url=anvil.rpc_url) as url, Control(url) as control:
        control.settings(accept_seconds=0.02, restart_seconds=0.05, stream_time_scale=0.01)
        rpc = JsonRpc(anvil.rpc_url)
        yield LocalChain(rpc), control
        rpc.close()


@pytest.fixture
def team(world: tuple[LocalChain, Control]) -> Iterator[Team]:
    team = Team.create(world[1])
    yield team
    team.api.close()


@pytest.fixture
def cvm(team: Team, world: tuple[LocalChain, Control]) -> OnChainCvm:
    return OnChainCvm.create(team, world[0])


@pytest.fixture
def cloud(team: Team) -> Iterator[PhalaCloud]:
    with PhalaCloud(team.api_key, team.control.api_url) as cloud:
        yield cloud


def prepare(cloud: PhalaCloud, cvm: OnChainCvm, compose: str = NEXT_COMPOSE) -> PatchPrepared:
    prepared = cloud.patch_cvm(uuid=cvm.vm_uuid, docker_compose_file=compose, prepare_only=True)
    assert isinstance(prepared, PatchPrepared)
    assert prepared.commit_token is not None
    return prepared


def test_prepare_register_commit_until_it_runs(cloud: PhalaCloud, cvm: OnChainCvm):
    assert cloud.get_cvm_info(uuid=cvm.vm_uuid).onchain_kms
    prepared = prepare(cloud, cvm)
    transaction = cvm.register(prepared.compose_hash)
    assert cloud.check_app_is_allowed(app_id=prepared.app_id, compose_hash=prepared.compose_hash).is_allowed
    with PhalaCloud(base_url=cloud.base_url) as anybody:
        token = prepared.commit_token
        assert token is not None
        assert anybody.get_commit_token_info(uuid=cvm.vm_uuid, token=token)
        accepted = anybody.commit_cvm_update(
            uuid=cvm.vm_uuid, token=token, compose_hash=prepared.compose_hash, transaction_hash=transaction
        )
        with pytest.raises(errors.HashInvalidOrExpired):  # one use
            anybody.commit_cvm_update(uuid=cvm.vm_uuid, token=token)
    assert cloud.watch_cvm_state(uuid=cvm.vm_uuid, target="running", retry_delay=10).status == "running"
    cvm.settle()
    operations = {item.correlation_id: item for item in cloud.iter_cvm_operations(uuid=cvm.vm_uuid)}
    assert operations[accepted.correlation_id].status == "completed"
    assert cloud.get_cvm_info(uuid=cvm.vm_uuid).compose_hash == prepared.compose_hash
    tcb = cloud.get_cvm_attestation(uuid=cvm.vm_uuid).tcb_info
    assert tcb is not None
    assert tcb.compose_hash == tcb.app_compose_sha256 == prepared.compose_hash == compose_hash(tcb.app_compose)
    document = cloud.get_cvm_compose_file(uuid=cvm.vm_uuid)
    assert document.docker_compose_file == NEXT_COMPOSE
    assert document.compose_hash() == prepared.compose_hash


def test_refusals_of_a_commit(cloud: PhalaCloud, cvm: OnChainCvm):
    first = prepare(cloud, cvm)
    second = prepare(cloud, cvm, NEXT_COMPOSE + "# again\n")
    assert first.commit_token is not None
    assert second.commit_token is not None
    with pytest.raises(errors.HashInvalidOrExpired):  # superseded
        cloud.commit_cvm_update(uuid=cvm.vm_uuid, token=first.commit_token)
    with pytest.raises(errors.HashInvalidOrExpired):  # nobody's
        cloud.commit_cvm_update(uuid=cvm.vm_uuid, token=str(uuid.uuid4()))
    with pytest.raises((errors.HashRegistrationRequired, errors.HashNotAllowed)) as unregistered:
        cloud.commit_cvm_update(uuid=cvm.vm_uuid, token=second.commit_token)
    assert unregistered.value.retryable
    other = cvm.register("ab" * 32)
    cvm.register(second.compose_hash)
    with pytest.raises(errors.TxVerificationFailed):
        cloud.commit_cvm_update(uuid=cvm.vm_uuid, token=second.commit_token, transaction_hash=other)
    assert cloud.commit_cvm_update(
        uuid=cvm.vm_uuid, token=second.commit_token, transaction_hash="already-registered"
    ).correlation_id


def test_the_path_without_a_token(cloud: PhalaCloud, cvm: OnChainCvm):
    first = cloud.patch_cvm(uuid=cvm.vm_uuid, docker_compose_file=NEXT_COMPOSE)
    assert isinstance(first, PatchPrepared)
    assert first.commit_token is None
    with pytest.raises(errors.OnChainError):
        cloud.confirm_cvm_patch(uuid=cvm.vm_uuid, compose_hash=first.compose_hash, transaction_hash="0x" + "12" * 32)
    transaction = cvm.register(first.compose_hash)
    assert cloud.confirm_cvm_patch(
        uuid=cvm.vm_uuid, compose_hash=first.compose_hash, transaction_hash=transaction
    ).correlation_id
    cvm.settle()
    assert cloud.get_cvm_docker_compose(uuid=cvm.vm_uuid) == NEXT_COMPOSE


def test_a_patch_that_moves_no_hash_is_applied_at_once(cloud: PhalaCloud, cvm: OnChainCvm):
    assert isinstance(cloud.patch_cvm(uuid=cvm.vm_uuid, vcpu=2, prepare_only=True), PatchApplied)


@pytest.mark.parametrize("function", ["update_pre_launch_script", "update_docker_compose"])
def test_single_fields_in_two_phases(function: str, cloud: PhalaCloud, cvm: OnChainCvm):
    text = {"pre_launch_script": "echo hi\n"} if "script" in function else {"docker_compose_file": NEXT_COMPOSE}
    call = getattr(cloud, function)
    asked = call(uuid=cvm.vm_uuid, **text)
    assert isinstance(asked, PreconditionRequired)
    transaction = cvm.register(asked.compose_hash)
    done = call(uuid=cvm.vm_uuid, **text, compose_hash=asked.compose_hash, transaction_hash=transaction)
    assert done.correlation_id
    cvm.settle()
    if "script" in function:
        assert cloud.get_cvm_pre_launch_script(uuid=cvm.vm_uuid) == "echo hi\n"


def test_environment_with_a_checked_key(cloud: PhalaCloud, cvm: OnChainCvm):
    prepared = prepare(cloud, cvm)
    slug = prepared.kms_info.slug
    assert slug is not None
    key = cloud.get_app_env_encrypt_pub_key(kms=slug, app_id=prepared.app_id)
    encrypted = encrypt_env({"A": "b"}, key.public_key)
    asked = cloud.update_cvm_envs(uuid=cvm.vm_uuid, encrypted_env=encrypted, env_keys=["A"])
    assert isinstance(asked, PreconditionRequired)


def test_compose_file_in_two_steps(cloud: PhalaCloud, cvm: OnChainCvm):
    app_compose = {**cloud.get_cvm_compose_file(uuid=cvm.vm_uuid).document, "docker_compose_file": NEXT_COMPOSE}
    provision = cloud.provision_cvm_compose_file_update(uuid=cvm.vm_uuid, app_compose=app_compose)
    cvm.register(provision.compose_hash)
    cloud.commit_cvm_compose_file_update(uuid=cvm.vm_uuid, compose_hash=provision.compose_hash)
    cvm.settle()
    assert cloud.get_cvm_info(uuid=cvm.vm_uuid).compose_hash == provision.compose_hash


def test_the_other_updates(cloud: PhalaCloud, team: Team):
    target = team.off_chain_cvm()["vm_uuid"]
    image = next(item for item in cloud.get_available_os_images(uuid=target) if item.prod and not item.prod.is_current)
    assert image.prod is not None
    cloud.update_os_image(uuid=target, os_image_name=image.prod.name)
    team.control.wait_idle(target)
    cloud.update_cvm_resources(uuid=target, vcpu=2)
    team.control.wait_idle(target)
    assert cloud.update_cvm_visibility(uuid=target, listed=True).name
    assert cloud.update_cvm_visibility(uuid=target, public_sysinfo=True, public_logs=True).status
    team.control.wait_idle(target)
    assert cloud.refresh_cvm_instance_id(uuid=target, dry_run=True).status
    assert cloud.refresh_cvm_instance_ids(running_only=False, missing_only=False).scanned >= 1
    info = cloud.get_cvm_info(uuid=target)
    assert info.listed
    assert info.resource.vcpu == 2
    assert not info.onchain_kms


def test_every_other_read(cloud: PhalaCloud, cvm: OnChainCvm):
    app = cvm.app[2:].lower()
    prepare(cloud, cvm)
    assert cloud.get_os_images().items
    assert cloud.get_cvm_state(uuid=cvm.vm_uuid).status == "running"
    assert cloud.get_cvm_user_config(uuid=cvm.vm_uuid) is not None
    assert [item.vm_uuid for item in cloud.get_cvm_list().items] == [cvm.vm_uuid]
    assert cloud.get_cvm_status_batch(vm_uuids=[cvm.vm_uuid])[cvm.vm_uuid].status == "running"
    assert cloud.get_app_cvms(app_id=app)[0].vm_uuid == cvm.vm_uuid
    assert cloud.get_app_kms_info(app_id=app).is_onchain_kms
    assert cloud.get_app_device_allowlist(app_id=app).is_onchain_kms
    assert cloud.check_cvm_is_allowed(cvm_id=cvm.vm_uuid).is_allowed
    assert cloud.check_app_cvms_is_allowed(app_id=app).allowed_count == 1
    for pending in cloud.get_pending_updates(app_id=app).items:
        cloud.get_pending_update_preview(app_id=app, vm_uuid=pending.vm_uuid, compose_hash=pending.compose_hash)
    for revision in cloud.get_app_revisions(app_id=app).revisions:
        cloud.get_app_revision_detail(app_id=app, revision_id=revision.revision_id, raw_compose_file=True)
    kms = cloud.get_kms_list().items[0]
    assert cloud.get_kms_info(kms_id=kms.id) == kms
    with pytest.raises(errors.NotFound) as missing:
        cloud.get_cvm_info(id="no-such-cvm")
    assert missing.value.code is not None
    with PhalaCloud("phak_wrong_key", cloud.base_url) as stranger, pytest.raises(errors.AuthError):
        stranger.get_cvm_info(uuid=cvm.vm_uuid)
