"""The update endpoints of a CVM: PATCH in its phases, and the older one-purpose endpoints."""

import json
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Body, Depends, Header
from pydantic import BaseModel, ConfigDict, Field

from sandbox.phala_cloud import commit, errors, operations, os_images, prepare, shapes
from sandbox.phala_cloud.compose import Update
from sandbox.phala_cloud.deps import BaseUrl, CvmDep, WorldDep
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.prepare import Change
from sandbox.phala_cloud.records import Cvm
from sandbox.phala_cloud.world import World

router = APIRouter(prefix="/cvms/{cvm_id}")

_COMPOSE_MEMBERS = frozenset(
    {
        "docker_compose_file",
        "pre_launch_script",
        "allowed_envs",
        "public_logs",
        "public_sysinfo",
        "public_tcbinfo",
    },
)

ComposeHash = Annotated[str | None, Header(alias="X-Compose-Hash")]
TransactionHash = Annotated[str | None, Header(alias="X-Transaction-Hash")]
PrepareOnly = Annotated[str | None, Header(alias="X-Prepare-Only")]


class Proof(NamedTuple):
    """What phase 2 brings: the hash that phase 1 answered, and the transaction that registered it."""

    compose_hash: str
    transaction_hash: str


class CvmPatch(BaseModel):
    """Body of PATCH; unknown members are ignored, null means not given."""

    docker_compose_file: str | None = None
    pre_launch_script: str | None = None
    allowed_envs: list[str] | None = None
    public_logs: bool | None = None
    public_sysinfo: bool | None = None
    public_tcbinfo: bool | None = None
    encrypted_env: str | None = None
    user_config: str | None = None
    # The SDK and the OpenAPI file disagree on the members, so any object is taken as it comes.
    gpus: dict[str, Any] | None = None
    vcpu: int | None = None
    memory: int | None = None
    disk_size: int | None = None
    image: str | None = None
    shutdown_timeout: int | None = Field(default=None, ge=10, le=1200)
    allow_force_stop: bool | None = None

    def change(self) -> Change:
        """As members of the app-compose and columns of the CVM.

        Raises:
            ApiError: 400 for an image that is not available or an environment that is no hex text.
        """
        given = self.model_dump(exclude_none=True)
        compose_members = {key: value for key, value in given.items() if key in _COMPOSE_MEMBERS}
        cvm_members = {key: value for key, value in given.items() if key not in _COMPOSE_MEMBERS}
        if "gpus" in cvm_members:
            cvm_members["gpus"] = json.dumps(cvm_members["gpus"])
        if "image" in cvm_members:
            cvm_members["image"] = _available_image(cvm_members["image"])
        if "encrypted_env" in cvm_members:
            _check_hex(cvm_members["encrypted_env"])
        return Change(compose_members, cvm_members)


@router.patch("", status_code=202)
def patch_cvm(
    world: WorldDep,
    cvm: CvmDep,
    base_url: BaseUrl,
    patch: CvmPatch,
    *,
    compose_hash: ComposeHash = None,
    transaction_hash: TransactionHash = None,
    prepare_only: PrepareOnly = None,
) -> Json:
    """Phase 1, prepare-only, or with `X-Compose-Hash` phase 2."""
    if compose_hash:
        return {"correlation_id": commit.confirm(world, cvm, compose_hash, transaction_hash or "")}
    change = patch.change()
    if not change.compose_members and not change.cvm_members:
        raise errors.bad_request("The request body has no member to update")
    wanted = (prepare_only or "").lower() == "true"
    correlation_id = prepare.request_update(world, cvm, change, prepare_only_at=base_url if wanted else None)
    return {"correlation_id": correlation_id}


def get_proof(compose_hash: ComposeHash = None, transaction_hash: TransactionHash = None) -> Proof | None:
    """The headers of phase 2; None in phase 1."""
    return Proof(compose_hash, transaction_hash or "") if compose_hash else None


ProofDep = Annotated[Proof | None, Depends(get_proof)]


@router.patch("/docker-compose", status_code=202)
def patch_docker_compose(
    world: WorldDep,
    cvm: CvmDep,
    proof: ProofDep,
    body: Annotated[bytes, Body(media_type="text/yaml")] = b"",
) -> Json:
    """Replace the Docker Compose file; the body is its text."""
    return _in_progress(_two_phases(world, cvm, Change({"docker_compose_file": _text(body)}), proof))


@router.patch("/pre-launch-script", status_code=202)
def patch_pre_launch_script(
    world: WorldDep,
    cvm: CvmDep,
    proof: ProofDep,
    body: Annotated[bytes, Body(media_type="text/plain")] = b"",
) -> Json:
    """Replace the pre-launch script; the body is its text, no body means no script."""
    return _in_progress(_two_phases(world, cvm, Change({"pre_launch_script": _text(body)}), proof))


class EnvsPatch(BaseModel):
    """Body of PATCH envs; phase 2 carries hash and transaction in the body."""

    encrypted_env: str
    env_keys: list[str] | None = None
    compose_hash: str | None = None
    transaction_hash: str | None = None


@router.patch("/envs", status_code=202)
def patch_envs(world: WorldDep, cvm: CvmDep, patch: EnvsPatch) -> Json:
    """Replace the encrypted environment; other keys than the allowed ones move the compose hash."""
    _check_hex(patch.encrypted_env)
    changed = patch.env_keys is not None and patch.env_keys != cvm.document["allowed_envs"]
    compose_members = {"allowed_envs": patch.env_keys} if changed else {}
    change = Change(compose_members, {"encrypted_env": patch.encrypted_env})
    proof = Proof(patch.compose_hash, patch.transaction_hash or "") if patch.compose_hash else None
    correlation_id = _two_phases(world, cvm, change, proof)
    return _in_progress(correlation_id) | {"allowed_envs_changed": changed}


class OsImagePatch(BaseModel):
    """Body of PATCH os-image."""

    os_image_name: str = Field(min_length=1)


@router.patch("/os-image", status_code=202)
def patch_os_image(world: WorldDep, cvm: CvmDep, patch: OsImagePatch) -> Json:
    """Change the OS image, by name or slug."""
    members = {"image": _available_image(patch.os_image_name)}
    return {"correlation_id": _operate(world, cvm, "os_upgrade", members)}


class ResourcesPatch(BaseModel):
    """Body of PATCH resources; the SDK's leaked identifier members are ignored."""

    vcpu: int | None = None
    memory: int | None = None
    disk_size: int | None = None
    instance_type: str | None = None


@router.patch("/resources", status_code=202)
def patch_resources(world: WorldDep, cvm: CvmDep, patch: ResourcesPatch) -> Json:
    """Resize."""
    return {"correlation_id": _operate(world, cvm, "resize", patch.model_dump(exclude_none=True))}


class VisibilityPatch(BaseModel):
    """Body of PATCH visibility."""

    public_sysinfo: bool
    public_logs: bool
    public_tcbinfo: bool | None = None


@router.patch("/visibility")
def patch_visibility(world: WorldDep, cvm: CvmDep, patch: VisibilityPatch) -> Json:
    """Set the public flags; where that moves an on-chain hash it is 465 as on the other endpoints."""
    flags = patch.model_dump(exclude_none=True)
    if any(cvm.document[name] != value for name, value in flags.items()):
        prepare.request_update(world, cvm, Change(flags))
    return shapes.legacy_cvm(world, cvm) | flags


class ListedPatch(BaseModel):
    """Body of PATCH listed."""

    model_config = ConfigDict(strict=True)

    listed: bool


@router.patch("/listed")
def patch_listed(world: WorldDep, cvm: CvmDep, patch: ListedPatch) -> Json:
    """Show or hide the CVM in public lists; nothing restarts."""
    world.database.update("cvms", cvm.id, listed=int(patch.listed), updated_at=world.clock.now())
    return shapes.legacy_cvm(world, cvm)


def _two_phases(world: World, cvm: Cvm, change: Change, proof: Proof | None) -> str:
    if proof is not None:
        return commit.confirm(world, cvm, proof.compose_hash, proof.transaction_hash)
    return prepare.request_update(world, cvm, change)


def _operate(world: World, cvm: Cvm, operation_type: str, members: Json) -> str:
    with world.database.transaction():
        correlation_id = operations.start(world, cvm, operation_type, Update(cvm.compose, members))
    world.ring()
    return correlation_id


def _in_progress(correlation_id: str) -> Json:
    return {"status": "in_progress", "message": "Update initiated", "correlation_id": correlation_id}


def _available_image(name_or_slug: str) -> str:
    image = os_images.find(name_or_slug)
    if image is None:
        raise errors.structured(
            400,
            "ERR-02-008",
            "The OS image is not available for this CVM",
            details=[{"field": "image", "value": name_or_slug, "message": "not available"}],
        )
    return image.name


def _check_hex(text: str) -> None:
    try:
        bytes.fromhex(text)
    except ValueError as error:
        raise errors.bad_request("encrypted_env is no hex text", "encrypted_env") from error


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise errors.bad_request("The body is not UTF-8") from error
