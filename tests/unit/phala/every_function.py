"""One valid call of every function of the client."""

from __future__ import annotations

from typing import Any

UUID = "01234567-89ab-4def-8123-456789abcdef"
APP = "09cef33ca9c6e4f2b1d5a7c3e8f0b2a4d6e8f1c3"
HASH = "ff22c67f1c8d5e4a9b3d2c1e0f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a"
TX = "0x" + "12" * 32
TOKEN = "a5732e36-8f4b-4c1d-9e7a-2b5c8d9e0f1a"

WRITES: dict[str, dict[str, Any]] = {
    "patch_cvm": {"id": "my-app", "docker_compose_file": "services: {}\n", "prepare_only": True},
    "confirm_cvm_patch": {"id": "my-app", "compose_hash": HASH, "transaction_hash": TX},
    "commit_cvm_update": {"id": "my-app", "token": TOKEN},
    "update_pre_launch_script": {"id": "my-app", "pre_launch_script": "true"},
    "update_docker_compose": {"id": "my-app", "docker_compose_file": "services: {}\n"},
    "update_cvm_envs": {"id": "my-app", "encrypted_env": "00ff"},
    "update_cvm_resources": {"id": "my-app", "vcpu": 2},
    "update_cvm_visibility": {"id": "my-app", "public_sysinfo": True, "public_logs": True},
    "update_os_image": {"id": "my-app", "os_image_name": "dstack-0.5.5"},
    "refresh_cvm_instance_id": {"id": "my-app"},
    "refresh_cvm_instance_ids": {},
    "provision_cvm_compose_file_update": {"id": "my-app", "app_compose": {"docker_compose_file": "services: {}\n"}},
    "commit_cvm_compose_file_update": {"id": "my-app", "compose_hash": HASH},
    "resend_webhook_delivery": {"webhook_id": "whk_1", "event_id": "evt_0123456789abcdef"},
}
GETS: dict[str, dict[str, Any]] = {
    "get_available_os_images": {"id": "my-app"},
    "get_os_images": {},
    "get_cvm_info": {"id": "my-app"},
    "get_cvm_state": {"id": "my-app"},
    "get_cvm_compose_file": {"id": "my-app"},
    "get_cvm_docker_compose": {"id": "my-app"},
    "get_cvm_pre_launch_script": {"id": "my-app"},
    "get_cvm_user_config": {"id": "my-app"},
    "get_cvm_attestation": {"id": "my-app"},
    "get_cvm_operations": {"id": "my-app"},
    "get_commit_token_info": {"id": "my-app", "token": TOKEN},
    "get_cvm_list": {},
    "get_app_cvms": {"app_id": APP},
    "get_app_device_allowlist": {"app_id": APP},
    "get_app_kms_info": {"app_id": APP},
    "get_pending_updates": {"app_id": APP},
    "get_pending_update_preview": {"app_id": APP, "vm_uuid": UUID, "compose_hash": HASH},
    "get_app_revisions": {"app_id": APP},
    "get_app_revision_detail": {"app_id": APP, "revision_id": "rev_1"},
    "get_kms_info": {"kms_id": "kms-base-prod5"},
    "get_kms_list": {},
    "get_app_env_encrypt_pub_key": {"kms": "kms-base-prod5", "app_id": APP},
    "list_webhooks": {},
    "list_webhook_deliveries": {"webhook_id": "whk_1"},
}
READING_POSTS: dict[str, dict[str, Any]] = {
    "check_cvm_is_allowed": {"cvm_id": UUID},
    "check_app_is_allowed": {"app_id": APP, "compose_hash": HASH},
    "check_app_cvms_is_allowed": {"app_id": APP},
    "get_cvm_status_batch": {"vm_uuids": [UUID]},
}
STREAMS: dict[str, dict[str, Any]] = {
    "watch_cvm_state": {"id": "my-app", "target": "running", "max_retries": 1, "retry_delay": 0},
}
EVERY = WRITES | GETS | READING_POSTS | STREAMS
