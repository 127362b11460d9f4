"""Apps: what their contract allows, their history, what waits for them."""

from typing import Any

from service.phala.models.base import Model
from service.phala.models.cvm import UserRef, WorkspaceRef


class IsAllowed(Model):
    """What the app contract says about a hash and a device. ``error`` is set where the chain could not be asked."""

    cvm_id: int | str | None = None
    app_contract_address: str
    compose_hash: str
    device_id: str
    compose_hash_allowed: bool
    allow_any_device: bool
    device_id_allowed: bool | None = None
    is_allowed: bool
    error: str | None = None


class AppCvmsIsAllowed(Model):
    """The same for every CVM of an app."""

    is_onchain: bool
    results: tuple[IsAllowed, ...] = ()
    total: int = 0
    allowed_count: int = 0
    denied_count: int = 0
    error_count: int = 0
    skipped_cvm_ids: tuple[int | str, ...] = ()


class CvmRef(Model):
    """The CVM a revision belongs to."""

    object_type: str = "cvm"
    vm_uuid: str | None = None
    app_id: str | None = None
    name: str | None = None


class AppRevision(Model):
    """One update in an app's history. ``created_at`` as the server writes it."""

    revision_id: str
    app_id: str
    vm_uuid: str
    compose_hash: str
    created_at: str
    operation_type: str
    trace_id: str | None = None
    triggered_by: UserRef | None = None
    cvm: CvmRef | None = None
    workspace: WorkspaceRef | None = None


class AppRevisions(Model):
    """One page of the history."""

    revisions: tuple[AppRevision, ...]
    total: int
    page: int
    page_size: int
    total_pages: int


class AppRevisionDetail(AppRevision):
    """A revision with what it deployed; ``compose_file`` is text if it was asked for raw."""

    compose_file: dict[str, Any] | str | None = None
    encrypted_env: str = ""
    user_config: str = ""


class AllowlistDevice(Model):
    """A device of the app, or of its contract's list."""

    device_id: str
    node_name: str | None = None
    cvm_ids: tuple[int | str, ...] = ()
    allowed_onchain: bool = False
    status: str


class AppDeviceAllowlist(Model):
    """Which devices the contract allows."""

    is_onchain_kms: bool = False
    allow_any_device: bool | None = None
    chain_id: int | None = None
    app_contract_address: str | None = None
    devices: tuple[AllowlistDevice, ...] = ()


class AppKmsInfo(Model):
    """Which contract approves for an app.

    ``deployer_type`` is ``eoa``, ``safe``, ``legacy_multisig``, ``erc4337`` or ``contract``.
    """

    is_onchain_kms: bool = False
    chain_id: int | None = None
    kms_contract_address: str | None = None
    app_contract_address: str | None = None
    deployer_address: str | None = None
    deployer_type: str | None = None
    is_contract: bool = False
    safe_app_url: str | None = None


class PendingUpdate(Model):
    """A provisioned compose file that is not applied yet; ``on_chain``: its hash is registered."""

    vm_uuid: str
    compose_hash: str
    on_chain: bool
    instance_name: str | None = None


class PendingUpdates(Model):
    """All of an app. There is no token in here."""

    items: tuple[PendingUpdate, ...] = ()


class PendingUpdatePreview(Model):
    """Both sides of a diff."""

    current_docker_compose: str | None = None
    pending_docker_compose: str | None = None
    current_pre_launch_script: str | None = None
    pending_pre_launch_script: str | None = None
