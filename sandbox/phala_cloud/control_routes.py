"""The controls under `/_sandbox`: seed it, move its clock, make it misbehave, read its ledger.

They take no credentials.
"""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sandbox.phala_cloud import (
    compose,
    errors,
    faults,
    identifiers,
    kms,
    operations,
    seeding,
    shapes,
    webhook_routes,
    webhooks,
)
from sandbox.phala_cloud.deps import FaultsDep, WorldDep
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.records import Cvm, cvm_by_id, kms_by_id
from sandbox.phala_cloud.settings import Settings
from sandbox.phala_cloud.world import World

router = APIRouter(prefix="/_sandbox", include_in_schema=False)


@router.get("/health")
def health(world: WorldDep) -> Json:
    """Whether it runs, its time, and the chain it looks at."""
    return {"now": world.clock.now(), "rpc_url": world.chain.rpc_url}


@router.post("/workspaces", status_code=201)
def create_workspace(world: WorldDep, seed: seeding.WorkspaceSeed) -> Json:
    """A workspace with an API key."""
    return seeding.create_workspace(world, seed)


@router.post("/workspaces/{slug}/api-keys", status_code=201)
def create_api_key(world: WorldDep, slug: str) -> Json:
    """Another API key."""
    return {"api_key": seeding.create_api_key(world, seeding.find_workspace(world, slug))}


class ComposeSeed(BaseModel):
    """Members of an app-compose, for a CVM of this name."""

    model_config = ConfigDict(extra="forbid")

    name: str = "my-app"
    compose: Json = {}


@router.post("/compose")
def preview_compose(seed: ComposeSeed) -> Json:
    """The completed document and its hash, to deploy a contract that allows it before the CVM exists."""
    text = seeding.completed_compose(seed.compose, seed.name)
    return {"compose": text, "compose_hash": compose.hash_of(text)}


@router.post("/cvms", status_code=201)
def create_cvm(world: WorldDep, seed: seeding.CvmSeed) -> Json:
    """A CVM."""
    return _cvm(world, seeding.create_cvm(world, seed))


@router.get("/cvms/{cvm_id}")
def get_cvm(world: WorldDep, cvm_id: str) -> Json:
    """Everything about a CVM, its environment in clear included."""
    return _cvm(world, identifiers.find_cvm(world.database, cvm_id, None))


@router.get("/kms/{kms_id}")
def get_kms(world: WorldDep, kms_id: str) -> Json:
    """The public key that a KMS' signatures recover to."""
    found = kms.find(world.database, kms_id)
    if found is None:
        raise errors.plain(404, "KMS not found")
    return kms.info(found) | {"k256_pubkey": kms.signer(found).hex()}


@router.patch("/settings")
def change_settings(world: WorldDep, changes: Json) -> Settings:
    """Durations, lag, clock offset; members not given stay."""
    try:
        settings = world.settings.change(**changes)
    except ValidationError as error:
        raise errors.plain(422, str(error)) from error
    world.ring()
    return settings


@router.get("/settings")
def get_settings(world: WorldDep) -> Settings:
    """The settings in force."""
    return world.settings.get()


class MishapSeed(BaseModel):
    """What goes wrong with the next operation of a CVM."""

    model_config = ConfigDict(extra="forbid")

    kind: str = Field(pattern=f"^({'|'.join(operations.MISHAPS)})$")
    detail: str = "The sandbox was told to fail"


@router.post("/cvms/{cvm_id}/mishaps", status_code=201)
def add_mishap(world: WorldDep, cvm_id: str, seed: MishapSeed) -> Json:
    """Let a CVM's next operation go wrong; several queue up."""
    cvm = identifiers.find_cvm(world.database, cvm_id, None)
    world.database.insert("mishaps", cvm_id=cvm.id, kind=seed.kind, detail=seed.detail)
    return seed.model_dump()


class HoldSeed(BaseModel):
    """How long a CVM is kept busy, in seconds of the sandbox's clock."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(default=3600.0, ge=0)


@router.post("/cvms/{cvm_id}/hold", status_code=201)
def hold(world: WorldDep, cvm_id: str, seed: HoldSeed) -> Json:
    """Another operation runs on the CVM, so that updates are 409."""
    cvm = identifiers.find_cvm(world.database, cvm_id, None)
    with world.database.transaction():
        correlation_id = operations.start(world, cvm, "maintenance", hold_seconds=seed.seconds)
    world.ring()
    return {"correlation_id": correlation_id}


@router.delete("/cvms/{cvm_id}/hold", status_code=204)
def release(world: WorldDep, cvm_id: str) -> None:
    """That other operation has ended when this answers."""
    operations.end_hold(world, identifiers.find_cvm(world.database, cvm_id, None))


@router.post("/faults", status_code=201)
def add_fault(store: FaultsDep, fault: faults.Fault) -> Json:
    """Misbehave at the next matching requests."""
    store.add(fault)
    return fault.model_dump()


@router.delete("/faults", status_code=204)
def clear_faults(store: FaultsDep) -> None:
    """Behave again."""
    store.clear()


class WebhookSeed(webhook_routes.WebhookCreate):
    """A receiver, by default of every event."""

    events: list[str] = Field(default_factory=lambda: list(webhooks.EVENTS))


@router.post("/workspaces/{slug}/webhooks", status_code=201)
def create_webhook(world: WorldDep, slug: str, seed: WebhookSeed) -> Json:
    """Register a receiver; the answer holds its secret."""
    return webhook_routes.create(world, seeding.find_workspace(world, slug), seed)


@router.post("/webhooks/{webhook_id}/rotate-secret")
def rotate_secret(world: WorldDep, webhook_id: str) -> Json:
    """A new secret, at once, as a person with a second factor would rotate it."""
    secret = webhooks.new_secret()
    world.database.update("webhooks", webhook_id, secret=secret, updated_at=world.clock.now())
    return {"id": webhook_id, "secret": secret}


@router.get("/ledger")
def get_ledger(
    world: WorldDep,
    kind: Annotated[str | None, Query()] = None,
    vm_uuid: Annotated[str | None, Query()] = None,
) -> list[Json]:
    """What happened, oldest first: prepare, commit, confirm, compose_file, update_accepted, boot..."""
    return world.ledger(kind, vm_uuid)


def _cvm(world: World, cvm: Cvm) -> Json:
    with world.database.transaction():
        cvm = cvm_by_id(world.database, cvm.id)
        info = shapes.cvm_info(world, cvm)
    key_service = kms_by_id(world.database, cvm.kms_id)
    running = cvm.running_compose
    return info | {
        "app_contract_address": cvm.app_address,
        "device_id": cvm.device_id,
        "kms_id": key_service.hashed_id,
        "boot_error": cvm.boot_error,
        "running_compose_hash": None if running is None else compose.hash_of(running),
        "environment": kms.decrypt_env(key_service, cvm.app_id, cvm.encrypted_env),
    }
