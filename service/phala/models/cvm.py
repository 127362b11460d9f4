"""A CVM: what it is, what state it is in, what it does."""

from typing import Any

from pydantic import Field

from service.phala.models.base import Model, UtcDatetime


class CvmResource(Model):
    """Size and price. Memory and disk in GB, ``compute_billing_price`` a decimal as text."""

    instance_type: str | None = None
    vcpu: int | None = None
    memory_in_gb: float | None = None
    disk_in_gb: int | None = None
    gpus: int | None = None
    compute_billing_price: str | None = None
    billing_period: str | None = None


class CvmNode(Model):
    """The machine it runs on. ``device_id`` is sha256 of the PPID, 64 hex digits."""

    object_type: str = "node"
    id: int | str | None = None
    name: str | None = None
    region: str | None = None
    device_id: str | None = None
    ppid: str | None = None
    status: str | None = None
    version: str | None = None


class CvmOs(Model):
    """The operating system image."""

    name: str | None = None
    version: str | None = None
    is_dev: bool | None = None
    os_image_hash: str | None = None


class CvmKms(Model):
    """The KMS of a CVM, in the words of the chain. ``chain_id`` None means that no contract has to approve updates.

    ``dstack_app_address`` is the app contract (0x and the app id), ``encrypted_env_pubkey`` the app's X25519 key (hex).
    """

    chain_id: int | None = None
    dstack_kms_address: str | None = None
    dstack_app_address: str | None = None
    deployer_address: str | None = None
    rpc_endpoint: str | None = None
    encrypted_env_pubkey: str | None = None


class CvmProgress(Model):
    """A running operation."""

    target: str | None = None
    started_at: UtcDatetime | None = None
    correlation_id: str | None = None


class CvmGateway(Model):
    """Under which domain the CVM is reached."""

    base_domain: str | None = None
    cname: str | None = None


class CvmEndpoint(Model):
    """One public address, by app and by instance."""

    app: str | None = None
    instance: str | None = None


class WorkspaceRef(Model):
    """The workspace something belongs to."""

    object_type: str = "workspace"
    id: int | str | None = None
    name: str | None = None
    slug: str | None = None
    avatar_url: str | None = None


class UserRef(Model):
    """A user of Phala Cloud."""

    object_type: str = "user"
    id: int | str | None = None
    username: str | None = None
    avatar_url: str | None = None


class CvmInfo(Model):
    """A CVM. ``app_id`` has 40 hex digits without 0x, ``vm_uuid`` its dashes, ``id`` is ``cvm_...``."""

    id: int | str
    name: str
    status: str
    app_id: str | None = None
    vm_uuid: str | None = None
    instance_id: str | None = None
    resource: CvmResource = Field(default_factory=CvmResource)
    node_info: CvmNode | None = None
    os: CvmOs | None = None
    kms_type: str | None = None
    kms_info: CvmKms | None = None
    progress: CvmProgress | None = None
    in_progress: bool = False
    compose_hash: str | None = None
    docker_compose_hash: str | None = None
    pre_launch_script_hash: str | None = None
    gateway: CvmGateway = Field(default_factory=CvmGateway)
    services: tuple[dict[str, Any], ...] = ()
    endpoints: tuple[CvmEndpoint, ...] = ()
    public_logs: bool | None = None
    public_sysinfo: bool | None = None
    public_tcbinfo: bool | None = None
    gateway_enabled: bool | None = None
    secure_time: bool | None = None
    listed: bool = False
    storage_fs: str | None = None
    workspace: WorkspaceRef | None = None
    creator: UserRef | None = None
    compose_file: dict[str, Any] | str | None = None
    created_at: UtcDatetime | None = None
    deleted_at: UtcDatetime | None = None

    @property
    def onchain_kms(self) -> bool:
        """A contract has to approve updates: only then does a prepare leave the CVM alone."""
        return self.kms_info is not None and self.kms_info.chain_id is not None


class CvmState(Model):
    """The state of a CVM as its node reports it."""

    id: str | None = None
    instance_id: str | None = None
    name: str
    status: str
    uptime: str | None = None
    exited_at: str | None = None
    boot_progress: str | None = None
    boot_error: str | None = None
    shutdown_progress: str | None = None


class NodeRef(Model):
    """The machine in an older record."""

    id: int | str
    name: str | None = None
    region_identifier: str | None = None


class LegacyCvm(Model):
    """The flat record that the older update endpoints answer. Memory in MB, disk in GB.

    Flags are None where the server does not mention them, right after setting them too.
    """

    id: int | str
    name: str
    status: str
    app_id: str | None = None
    vm_uuid: str | None = None
    instance_id: str | None = None
    base_image: str | None = None
    vcpu: int | None = None
    memory: int | None = None
    disk_size: int | None = None
    encrypted_env_pubkey: str | None = None
    instance_type: str | None = None
    teepod_id: int | str | None = None
    teepod: NodeRef | None = None
    listed: bool | None = None
    in_progress: bool | None = None
    public_sysinfo: bool | None = None
    public_logs: bool | None = None
    public_tcbinfo: bool | None = None
    public_urls: tuple[Any, ...] = ()


class OperationEvent(Model):
    """One step of an operation."""

    event_type: str
    state: str
    timestamp: UtcDatetime


class CvmOperation(Model):
    """An operation, known by its ``correlation_id``. ``status`` is ``in_progress``, ``completed`` or ``failed``."""

    correlation_id: str
    operation_type: str
    status: str
    started_at: UtcDatetime
    completed_at: UtcDatetime | None = None
    duration_ms: int | None = None
    target_state: str | None = None
    instance_name: str | None = None
    compose_hash: str | None = None
    error_message: str | None = None
    triggered_by: int | str | None = None
    triggered_by_username: str | None = None
    triggered_by_email: str | None = None
    sub_operations: tuple[str, ...] = ()
    events: tuple[OperationEvent, ...] = ()


class CvmOperations(Model):
    """One page of operations. ``next_cursor`` None means that this is the last one."""

    items: tuple[CvmOperation, ...]
    next_cursor: str | None = None
    total: int | None = None


class CvmUserConfig(Model):
    """The user's configuration of a CVM."""

    hostname: str | None = None
    ssh_authorized_keys: tuple[str, ...] = ()
    default_gateway_domain: str | None = None


class CvmStatus(Model):
    """The short status of the batch read."""

    vm_uuid: str
    status: str
    in_progress: bool
    uptime: str | None = None
    boot_progress: str | None = None
    boot_error: str | None = None
    operation_type: str | None = None
    operation_started_at: UtcDatetime | None = None
    correlation_id: str | None = None


class CvmList(Model):
    """One page of CVMs."""

    items: tuple[CvmInfo, ...]
    total: int
    page: int
    page_size: int
    pages: int
