"""Making workspaces and CVMs, as the controls do."""

import re
import secrets
import uuid

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sandbox.phala_cloud import compose, errors, kms, operations, os_images
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.records import Cvm, Workspace, cvm_by_id, sha256_hex, workspace_by_id
from sandbox.phala_cloud.world import World

DEFAULT_COMPOSE_FILE = "services:\n  web:\n    image: nginx:1.27\n    ports:\n      - '80:80'\n"
_NODE_ID = 5


class WorkspaceSeed(BaseModel):
    """A workspace with one user."""

    model_config = ConfigDict(extra="forbid")

    slug: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    name: str | None = None
    username: str = "alice"


class CvmSeed(BaseModel):
    """A CVM that is there from the start."""

    model_config = ConfigDict(extra="forbid")

    workspace: str
    """Slug of the workspace it belongs to."""
    name: str = "my-app"
    app_id: str | None = None
    """The app contract's address (40 hex digits, 0x allowed); random if None, for a CVM off chain."""
    device_id: str | None = None
    """32 bytes of hex; random if None."""
    kms_type: str = Field(default="base", pattern="^(phala|ethereum|base|legacy)$")
    chain_id: int | None = 31337
    """Chain of the app contract; None: no on-chain KMS."""
    kms_contract_address: str | None = "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"
    compose: Json = {}
    """Members of the app-compose; the server fills in the rest."""
    vm_uuid: str | None = None
    initially_allowed: bool = True
    """Whether it runs from the start, no questions asked; False: its first boot asks the contract."""
    instance_id_recorded: bool = True
    """Whether the platform already knows the instance id."""
    user_config: str = "{}"

    @field_validator("app_id", "device_id")
    @classmethod
    def _bare(cls, value: str | None) -> str | None:
        return None if value is None else value.lower().removeprefix("0x")

    @field_validator("app_id")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch("[0-9a-f]{40}", value):
            raise ValueError("must be 20 bytes of hex")
        return value

    @field_validator("device_id")
    @classmethod
    def _bytes32(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch("[0-9a-f]{64}", value):
            raise ValueError("must be 32 bytes of hex")
        return value


def completed_compose(members: Json, name: str) -> str:
    """The canonical text a CVM of this name would be configured with.

    Raises:
        ApiError: 400 or 422 for a compose that could not be deployed.
    """
    document = compose.complete({"docker_compose_file": DEFAULT_COMPOSE_FILE} | members, name)
    compose.validate(document)
    return compose.canonical(document)


def create_workspace(world: World, seed: WorkspaceSeed) -> Json:
    """A workspace and a first API key, which this answer alone shows.

    Raises:
        ApiError: 409 if the slug is taken.
    """
    with world.database.transaction():
        if world.database.one("SELECT 1 FROM workspaces WHERE slug = ?", seed.slug) is not None:
            raise errors.plain(409, f"workspace {seed.slug} exists")
        row_id = world.database.insert(
            "workspaces",
            hashed_id=f"wks_{secrets.token_hex(4)}",
            slug=seed.slug,
            name=seed.name or seed.slug,
            user_hashed_id=f"usr_{secrets.token_hex(4)}",
            username=seed.username,
        )
        workspace = workspace_by_id(world.database, row_id)
        return {
            "id": workspace.hashed_id,
            "slug": workspace.slug,
            "name": workspace.name,
            "api_key": create_api_key(world, workspace),
        }


def create_api_key(world: World, workspace: Workspace) -> str:
    """Another API key of a workspace."""
    api_key = f"phak_{secrets.token_urlsafe(24)}"
    world.database.insert("api_keys", key_sha256=sha256_hex(api_key), workspace_id=workspace.id)
    return api_key


def find_workspace(world: World, slug: str) -> Workspace:
    """The workspace of this slug.

    Raises:
        ApiError: 404.
    """
    row = world.database.one("SELECT * FROM workspaces WHERE slug = ?", slug)
    if row is None:
        raise errors.plain(404, f"no workspace {slug}")
    return Workspace(**dict(row))


def create_cvm(world: World, seed: CvmSeed) -> Cvm:
    """A CVM as the seed has it.

    Raises:
        ApiError: 404 for an unknown workspace; 400 or 422 for a bad compose; 409 for a UUID in use.
    """
    workspace = find_workspace(world, seed.workspace)
    text = completed_compose(seed.compose, seed.name)
    now = world.clock.now()
    on_chain = seed.chain_id is not None
    vm_uuid = str(uuid.UUID(seed.vm_uuid)) if seed.vm_uuid else str(uuid.uuid4())
    with world.database.transaction():
        if world.database.one("SELECT 1 FROM cvms WHERE vm_uuid = ?", vm_uuid) is not None:
            raise errors.plain(409, f"CVM {vm_uuid} exists")
        key_service = kms.ensure(
            world.database,
            seed.kms_type if on_chain else "phala",
            seed.chain_id,
            seed.kms_contract_address if on_chain else None,
        )
        instance_id = secrets.token_hex(20)
        row_id = world.database.insert(
            "cvms",
            workspace_id=workspace.id,
            kms_id=key_service.id,
            hashed_id=f"cvm_{secrets.token_hex(4)}",
            vm_uuid=vm_uuid,
            name=seed.name,
            app_id=seed.app_id or secrets.token_hex(20),
            instance_id=instance_id if seed.instance_id_recorded else None,
            node_instance_id=instance_id,
            device_id=seed.device_id or secrets.token_hex(32),
            node_id=_NODE_ID,
            node_name="sandbox5",
            status="running",
            boot_progress="done",
            compose=text,
            compose_hash=compose.hash_of(text),
            running_compose=text if seed.initially_allowed else None,
            running_since=now if seed.initially_allowed else None,
            vcpu=1,
            memory=2048,
            disk_size=20,
            image=os_images.DEFAULT.name,
            instance_type="tdx.small",
            user_config=seed.user_config,
            encrypted_env="",
            allow_force_stop=0,
            listed=0,
            created_at=now,
            updated_at=now,
        )
        cvm = cvm_by_id(world.database, row_id)
        if seed.initially_allowed:
            operations.add_revision(world, cvm, "create", None, now)
        else:
            world.database.update("cvms", cvm.id, status="creating", boot_progress="booting")
            operations.start(world, cvm, "create")
    world.ring()
    return cvm_by_id(world.database, cvm.id)
