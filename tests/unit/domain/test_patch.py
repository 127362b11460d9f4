import pytest

from service.domain.patch import moves_hash


@pytest.mark.parametrize(
    "patch",
    [
        {"docker_compose_file": "services: {}"},
        {"pre_launch_script": ""},
        {"allowed_envs": []},
        {"public_logs": False},
        {"public_sysinfo": True},
        {"public_tcbinfo": True},
        {"encrypted_env": "00", "allowed_envs": ["A"]},
        {"vcpu": 2, "public_logs": True},
    ],
)
def test_members_of_the_document_move_the_hash(patch: dict[str, object]) -> None:
    assert moves_hash(patch)


@pytest.mark.parametrize(
    "patch",
    [
        {},
        {"encrypted_env": "00"},
        {"user_config": "{}"},
        {"gpus": {"count": 1}},
        {"vcpu": 2, "memory": 4096, "disk_size": 40},
        {"image": "dstack-0.5.4"},
        {"shutdown_timeout": 60, "allow_force_stop": True},
    ],
)
def test_other_members_do_not(patch: dict[str, object]) -> None:
    assert not moves_hash(patch)
