"""Commit by token, which needs no API key, and the two-step compose file update."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from sandbox.phala_cloud import commit, compose, errors, identifiers, kms, prepare
from sandbox.phala_cloud.compose import Update
from sandbox.phala_cloud.deps import CvmDep, WorldDep
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.records import kms_by_id
from sandbox.phala_cloud.settings import iso

router = APIRouter(prefix="/cvms/{cvm_id}")


class CommitUpdate(BaseModel):
    """Body of commit-update: everything may be left out, the token may be in the query instead."""

    token: str = ""
    compose_hash: str = ""
    transaction_hash: str = ""


@router.post("/commit-update", status_code=202)
def commit_update(
    world: WorldDep,
    cvm_id: str,
    body: CommitUpdate | None = None,
    token: Annotated[str | None, Query()] = None,
) -> Json:
    """Spend a commit token."""
    cvm = identifiers.find_cvm(world.database, cvm_id, workspace=None)
    given = body or CommitUpdate()
    correlation_id = commit.commit_update(
        world,
        cvm,
        given.token or token or "",
        given.compose_hash,
        given.transaction_hash,
    )
    return {"correlation_id": correlation_id, "status": "pending"}


@router.get("/commit-update")
def commit_token_metadata(world: WorldDep, cvm_id: str, token: str) -> Json:
    """What a live token stands for. Phala documents the endpoint, but these members are ours."""
    cvm = identifiers.find_cvm(world.database, cvm_id, workspace=None)
    prepared = commit.live_prepare(world, cvm, token)
    key_service = kms_by_id(world.database, cvm.kms_id)
    return {
        "vm_uuid": cvm.vm_uuid,
        "cvm_name": cvm.name,
        "app_id": cvm.app_id,
        "device_id": cvm.device_id,
        "compose_hash": prepared.compose_hash,
        "kms_info": kms.info(key_service),
        "created_at": iso(prepared.created_at),
        "expires_at": iso(prepared.expires_at),
    }


class ProvisionRequest(BaseModel):
    """The members of an app-compose at top level, and `update_env_vars`."""

    model_config = ConfigDict(extra="allow")

    name: str
    update_env_vars: bool | None = None


@router.get("/compose_file")
def get_compose_file(cvm: CvmDep, raw: str | None = None) -> Json | str:
    """The configured app-compose; with `raw` its exact text."""
    return cvm.compose if raw else cvm.document


@router.post("/compose_file/provision")
def provision(world: WorldDep, cvm: CvmDep, body: ProvisionRequest) -> Json:
    """Step one: the server's own hash of a new compose, remembered for 14 days."""
    given = dict(body.model_extra or {}) | {"name": body.name}
    if not body.update_env_vars:
        given["allowed_envs"] = cvm.document["allowed_envs"]
    document = compose.complete(given, cvm.name)
    compose.validate(document)
    text = compose.canonical(document)
    prepare.remember(world, cvm, Update(text), source="provision")
    key_service = kms_by_id(world.database, cvm.kms_id)
    registered = (
        key_service.chain_id is not None
        and prepare.read_allowance(world, cvm, compose.hash_of(text)).compose_hash_allowed
    )
    return {
        "app_id": cvm.app_id,
        "device_id": cvm.device_id,
        "compose_hash": compose.hash_of(text),
        "kms_info": kms.info(key_service),
        "compose_hash_registered": registered,
    }


class ComposeFileCommit(BaseModel):
    """Body of PATCH compose_file."""

    compose_hash: str
    encrypted_env: str | None = None
    env_keys: list[str] | None = None
    update_env_vars: bool | None = None


@router.patch("/compose_file", status_code=202)
def commit_compose_file(world: WorldDep, cvm: CvmDep, body: ComposeFileCommit) -> Json:
    """Step two. Nothing binds it to the approved document.

    With `update_env_vars` the keys go into the document now: if the provision had others, the CVM gets a
    document with another hash than the approved one, without any error here, and is refused at boot.
    """
    provisioned = commit.recall(world, cvm, body.compose_hash, source="provision")
    if provisioned is None:
        raise errors.bad_request("No provisioned compose file has this hash", "compose_hash")
    return {"correlation_id": commit.commit_provisioned(world, cvm, provisioned, body.model_dump())}


class ComposeFileSubmit(BaseModel):
    """Body of POST compose_file."""

    compose_file: Json
    compose_hash: str
    encrypted_env: str | None = None
    env_keys: list[str] | None = None


@router.post("/compose_file", status_code=202)
def submit_compose_file(world: WorldDep, cvm: CvmDep, body: ComposeFileSubmit) -> Json:
    """Both steps in one, for who computed the hash already."""
    compose.validate(body.compose_file)
    text = compose.canonical(body.compose_file)
    if compose.hash_of(text) != body.compose_hash.lower().removeprefix("0x"):
        raise errors.bad_request("The compose hash does not match the compose file", "compose_hash")
    prepare.remember(world, cvm, Update(text), source="provision")
    provisioned = commit.recall(world, cvm, body.compose_hash, source="provision")
    if provisioned is None:
        raise errors.bad_request("The compose file is gone", "compose_hash")
    return {"correlation_id": commit.commit_provisioned(world, cvm, provisioned, body.model_dump())}
