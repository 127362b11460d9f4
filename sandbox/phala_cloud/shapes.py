"""The JSON of a CVM in each of the shapes Phala Cloud answers with."""

import hashlib
from typing import Any

from sandbox.phala_cloud import kms, os_images
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.records import (
    Cvm,
    Kms,
    Operation,
    Workspace,
    cvm_by_id,
    kms_by_id,
    running_operation,
    workspace_by_id,
)
from sandbox.phala_cloud.settings import iso
from sandbox.phala_cloud.world import World

LEGACY_VERSION = "2025-10-28"
GATEWAY_DOMAIN = "dstack-sandbox.phala.invalid"


def at_one_moment(world: World, cvm: Cvm) -> tuple[Cvm, Operation | None]:
    """The CVM and what keeps it busy, of the same moment: an operation may have ended since `cvm` was read."""
    with world.database.transaction():
        return cvm_by_id(world.database, cvm.id), running_operation(world.database, cvm.id)


def cvm_info(world: World, cvm: Cvm, *, detail: bool = True) -> Json:
    """CvmInfo of API version 2026-01-21."""
    cvm, operation = at_one_moment(world, cvm)
    key_service = kms_by_id(world.database, cvm.kms_id)
    workspace = workspace_by_id(world.database, cvm.workspace_id)
    document = cvm.document
    info: Json = {
        "id": cvm.hashed_id,
        "name": cvm.name,
        "app_id": cvm.app_id,
        "vm_uuid": cvm.vm_uuid,
        "instance_id": cvm.instance_id,
        "resource": _resource(cvm),
        "node_info": _node(cvm),
        "os": _os(cvm),
        "kms_type": key_service.kms_type,
        "kms_info": _cvm_kms_info(world, cvm, key_service),
        "status": cvm.status,
        "progress": None if operation is None else _progress(operation),
        "in_progress": operation is not None,
        "compose_hash": cvm.compose_hash,
        "docker_compose_hash": _sha256(document.get("docker_compose_file")),
        "pre_launch_script_hash": _sha256(document.get("pre_launch_script")),
        "gateway": {"base_domain": GATEWAY_DOMAIN, "cname": None},
        "services": [],
        "endpoints": public_urls(cvm),
        "public_logs": bool(document["public_logs"]),
        "public_sysinfo": bool(document["public_sysinfo"]),
        "public_tcbinfo": bool(document["public_tcbinfo"]),
        "gateway_enabled": bool(document["gateway_enabled"]),
        "secure_time": bool(document["secure_time"]),
        "listed": bool(cvm.listed),
        "storage_fs": document["storage_fs"],
        "project_type": "dstack_app",
        "workspace": workspace_ref(workspace),
        "creator": user_ref(workspace),
        "logs": {"serial": None, "stdout": None, "stderr": None, "container_log_base": None},
        "created_at": iso(cvm.created_at),
        "deleted_at": None,
    }
    return info | {"compose_file": document} if detail else info


def legacy_cvm(world: World, cvm: Cvm) -> Json:
    """The flat record of API version 2025-10-28; update endpoints answer with it in every version."""
    cvm, operation = at_one_moment(world, cvm)
    key_service = kms_by_id(world.database, cvm.kms_id)
    document = cvm.document
    return {
        "id": cvm.id,
        "name": cvm.name,
        "status": cvm.status,
        "in_progress": operation is not None,
        "teepod_id": cvm.node_id,
        "teepod": {"id": cvm.node_id, "name": cvm.node_name, "region_identifier": "sandbox"},
        "app_id": cvm.app_id,
        "vm_uuid": cvm.vm_uuid,
        "instance_id": cvm.instance_id,
        "vcpu": cvm.vcpu,
        "memory": cvm.memory,
        "disk_size": cvm.disk_size,
        "base_image": cvm.image,
        "encrypted_env_pubkey": kms.env_public_key(key_service, cvm.app_id).hex(),
        "listed": bool(cvm.listed),
        "project_id": None,
        "project_type": "dstack_app",
        "instance_type": cvm.instance_type,
        "public_sysinfo": bool(document["public_sysinfo"]),
        "public_logs": bool(document["public_logs"]),
        "dapp_dashboard_url": None,
        "syslog_endpoint": None,
        "kms_info": kms.info(key_service),
        "contract_address": None if key_service.chain_id is None else cvm.app_address,
        "deployer_address": None,
        "scheduled_delete_at": None,
        "public_urls": public_urls(cvm),
        "gateway_domain": GATEWAY_DOMAIN,
        "machine_info": None,
        "created_at": iso(cvm.created_at),
        "updated_at": iso(cvm.updated_at),
    }


def for_version(world: World, cvm: Cvm, version: str | None) -> Json:
    """The CVM as the caller's `X-Phala-Version` has it."""
    return legacy_cvm(world, cvm) if version == LEGACY_VERSION else cvm_info(world, cvm)


def cvm_state(world: World, cvm: Cvm) -> Json:
    """CvmState; members without a value are absent, null would break the official SDK."""
    state = {
        "id": cvm.vm_uuid.replace("-", ""),
        "instance_id": cvm.instance_id,
        "name": cvm.name,
        "status": cvm.status,
        "uptime": uptime(world, cvm),
        "exited_at": None if cvm.running_compose or not cvm.exited_at else iso(cvm.exited_at),
        "boot_progress": cvm.boot_progress,
        "boot_error": cvm.boot_error,
    }
    return {key: value for key, value in state.items() if value is not None}


def cvm_status(world: World, cvm: Cvm) -> Json:
    """One value of `/status/batch`."""
    cvm, operation = at_one_moment(world, cvm)
    return {
        "vm_uuid": cvm.vm_uuid,
        "status": cvm.status,
        "in_progress": operation is not None,
        "uptime": uptime(world, cvm),
        "boot_progress": cvm.boot_progress,
        "boot_error": cvm.boot_error,
        "operation_type": None if operation is None else operation.operation_type,
        "operation_started_at": None if operation is None else iso(operation.started_at),
        "correlation_id": None if operation is None else operation.correlation_id,
    }


def uptime(world: World, cvm: Cvm) -> str | None:
    """Since the last boot, such as `75s`; None while nothing runs."""
    if cvm.running_since is None:
        return None
    return f"{max(0, int(world.clock.now() - cvm.running_since))}s"


def public_urls(cvm: Cvm) -> list[Json]:
    """Where the CVM's services would be reached."""
    return [
        {
            "app": f"https://{cvm.app_id}.{GATEWAY_DOMAIN}",
            "instance": f"https://{cvm.node_instance_id}.{GATEWAY_DOMAIN}",
        },
    ]


def workspace_ref(workspace: Workspace) -> Json:
    """A workspace as other objects name it."""
    return {
        "object_type": "workspace",
        "id": workspace.hashed_id,
        "name": workspace.name,
        "slug": workspace.slug,
        "avatar_url": None,
    }


def user_ref(workspace: Workspace) -> Json:
    """The workspace's user as other objects name them."""
    return {
        "object_type": "user",
        "id": workspace.user_hashed_id,
        "username": workspace.username,
        "avatar_url": None,
    }


def _resource(cvm: Cvm) -> Json:
    return {
        "instance_type": cvm.instance_type,
        "vcpu": cvm.vcpu,
        "memory_in_gb": cvm.memory / 1024,
        "disk_in_gb": cvm.disk_size,
        "gpus": 0,
        "compute_billing_price": "0.058",
        "billing_period": "hourly",
    }


def _node(cvm: Cvm) -> Json:
    return {
        "object_type": "node",
        "id": cvm.node_id,
        "name": cvm.node_name,
        "region": "sandbox",
        "device_id": cvm.device_id,
        "ppid": None,
        "status": "ONLINE",
        "version": "v0.5.4",
    }


def _os(cvm: Cvm) -> Json:
    image = os_images.find(cvm.image) or os_images.DEFAULT
    return {
        "name": image.name,
        "version": image.dotted,
        "is_dev": image.is_dev,
        "os_image_hash": image.os_image_hash,
    }


def _cvm_kms_info(world: World, cvm: Cvm, key_service: Kms) -> Json:
    on_chain = key_service.chain_id is not None
    return {
        "chain_id": key_service.chain_id,
        "dstack_kms_address": key_service.contract_address,
        "dstack_app_address": cvm.app_address if on_chain else None,
        "deployer_address": None,
        "rpc_endpoint": world.chain.rpc_url if on_chain else None,
        "encrypted_env_pubkey": kms.env_public_key(key_service, cvm.app_id).hex(),
    }


def _progress(operation: Operation) -> Json:
    return {
        "target": operation.target_state,
        "started_at": iso(operation.started_at),
        "correlation_id": operation.correlation_id,
    }


def _sha256(value: Any) -> str | None:  # noqa: ANN401 - a member of a JSON document
    return hashlib.sha256(value.encode()).hexdigest() if isinstance(value, str) and value else None
