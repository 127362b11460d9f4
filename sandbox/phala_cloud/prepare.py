"""Phase 1: what an update would be, remembered until somebody shows that its hash is registered."""

import json
import uuid
from dataclasses import dataclass, field

from sandbox.phala_cloud import compose, errors, kms, operations, webhooks
from sandbox.phala_cloud.chain import Allowance, ChainUnavailableError
from sandbox.phala_cloud.compose import Update
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.records import Cvm, kms_by_id, sha256_hex, workspace_by_id
from sandbox.phala_cloud.world import World

LIFETIME_SECONDS = 14 * 24 * 3600


@dataclass(frozen=True)
class Change:
    """An update as asked for.

    `compose_members` replace members of the app-compose; `cvm_members` are columns of the CVM outside it.
    """

    compose_members: Json = field(default_factory=dict)
    cvm_members: Json = field(default_factory=dict)


def request_update(
    world: World,
    cvm: Cvm,
    change: Change,
    *,
    prepare_only_at: str | None = None,
) -> str:
    """Apply a change that needs no registration; else remember it and say which hash to register.

    Without on-chain KMS, or when the hash does not move, it is applied at once: prepare-only is no dry run.

    Args:
        world: the sandbox.
        cvm: the CVM to change.
        change: what is asked for.
        prepare_only_at: prepare only, naming commit addresses under this base address; None: update directly.

    Returns:
        The correlation id of the operation.

    Raises:
        ApiError: 465 with the hash (and, if prepare-only, the commit token); 409; 400; 422; 500.
    """
    operations.ensure_idle(world, cvm)
    document = compose.complete(cvm.document | change.compose_members, cvm.name)
    compose.validate(document)
    update = Update(compose.canonical(document), change.cvm_members)
    off_chain = kms_by_id(world.database, cvm.kms_id).chain_id is None
    if off_chain or update.compose_hash == cvm.compose_hash:
        return _apply_now(world, cvm, update, prepare_only=prepare_only_at is not None)
    allowance = read_allowance(world, cvm, update.compose_hash)
    if prepare_only_at is not None:
        raise _mint_token(world, cvm, update, allowance, prepare_only_at)
    if allowance.compose_hash_allowed:
        return _apply_now(world, cvm, update, prepare_only=False)
    remember(world, cvm, update, source="patch")
    raise errors.hash_registration_required(_details(world, cvm, update))


def read_allowance(world: World, cvm: Cvm, compose_hash: str) -> Allowance:
    """What the contract says, through the sandbox's possibly lagging view.

    Raises:
        ApiError: 500 if the chain cannot be read.
    """
    try:
        return world.chain.allowance(cvm.app_address, compose_hash, cvm.device_id)
    except ChainUnavailableError as error:
        raise errors.plain(500, "KMS configuration or RPC error") from error


def remember(world: World, cvm: Cvm, update: Update, *, source: str, token: str | None = None) -> float:
    """Keep an update for 14 days; answers when that ends, in epoch seconds of the sandbox."""
    now = world.clock.now()
    world.database.insert(
        "prepares",
        cvm_id=cvm.id,
        token_sha256=None if token is None else sha256_hex(token),
        compose=update.text,
        compose_hash=update.compose_hash,
        base_hash=cvm.compose_hash,
        members=json.dumps(update.members),
        source=source,
        created_at=now,
        expires_at=now + LIFETIME_SECONDS,
    )
    return now + LIFETIME_SECONDS


def _apply_now(world: World, cvm: Cvm, update: Update, *, prepare_only: bool) -> str:
    with world.database.transaction():
        correlation_id = operations.start(world, cvm, "compose_update", update)
        world.record(
            "update_accepted",
            cvm.vm_uuid,
            prepare_only=prepare_only,
            compose_hash=update.compose_hash,
            correlation_id=correlation_id,
        )
    world.ring()
    return correlation_id


def _mint_token(
    world: World,
    cvm: Cvm,
    update: Update,
    allowance: Allowance,
    base_url: str,
) -> errors.ApiError:
    """A token kills the CVM's earlier one; every one of them is told to the webhooks."""
    token = str(uuid.uuid4())
    workspace = workspace_by_id(world.database, cvm.workspace_id)
    console = f"{base_url}/{workspace.slug}/cvms/{cvm.vm_uuid}/confirm-update"
    credentials = {
        "commit_token": token,
        "commit_url": f"{console}?token={token}&compose_hash={update.compose_hash}",
        "api_commit_url": f"{base_url}/api/v1/cvms/{cvm.vm_uuid}/commit-update?token={token}",
    }
    with world.database.transaction():
        superseded = world.database.run(
            "UPDATE prepares SET superseded_at = ? WHERE cvm_id = ? AND token_sha256 IS NOT NULL"
            " AND superseded_at IS NULL AND spent_at IS NULL",
            world.clock.now(),
            cvm.id,
        )
        expires_at = remember(world, cvm, update, source="prepare", token=token)
        data = webhooks.pending_approval_data(world, cvm, update.compose_hash, credentials, expires_at)
        webhooks.emit(world, workspace, webhooks.PENDING_APPROVAL, data)
        world.record("prepare", cvm.vm_uuid, compose_hash=update.compose_hash, superseded=superseded)
    world.ring()
    onchain_status = {
        "compose_hash_allowed": allowance.compose_hash_allowed,
        "device_id_allowed": allowance.device_id_allowed,
        "is_allowed": allowance.is_allowed,
    }
    return errors.hash_registration_required(
        [
            *_details(world, cvm, update),
            {"field": "onchain_status", "value": onchain_status},
            *({"field": name, "value": value} for name, value in credentials.items()),
        ],
    )


def _details(world: World, cvm: Cvm, update: Update) -> list[Json]:
    return [
        {"field": "compose_hash", "value": update.compose_hash},
        {"field": "app_id", "value": cvm.app_id},
        {"field": "device_id", "value": cvm.device_id},
        {"field": "kms_info", "value": kms.info(kms_by_id(world.database, cvm.kms_id))},
    ]
