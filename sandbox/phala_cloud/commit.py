"""Phase 2: the token, or the hash, and the proof that the contract allows it."""

import json
from dataclasses import replace
from http import HTTPStatus

from sandbox.phala_cloud import compose, errors, operations
from sandbox.phala_cloud.chain import ChainUnavailableError
from sandbox.phala_cloud.compose import Update
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.records import Cvm, Prepare, cvm_by_id, kms_by_id, prepare_by_token
from sandbox.phala_cloud.world import World

ALREADY_REGISTERED = ("", "already-registered")
"""Transaction hashes that ask for the state check alone."""


def commit_update(world: World, cvm: Cvm, token: str, compose_hash: str, transaction_hash: str) -> str:
    """Spend a commit token; answers the correlation id.

    Checks in the documented order: token, hash, allowlist, transaction; then that the CVM is idle.

    Raises:
        ApiError: 466, 465 or 468, 467, 409, 500.
    """
    try:
        prepared = live_prepare(world, cvm, token)
        if compose_hash and _bare(compose_hash) != prepared.compose_hash:
            raise errors.hash_invalid_or_expired()
        _check_chain(world, cvm, prepared.compose_hash, transaction_hash, unregistered=465)
        return _spend(world, cvm, prepared, "commit", transaction_hash)
    except errors.ApiError as error:
        _refused(world, cvm, "commit", error)
        raise


def confirm(world: World, cvm: Cvm, compose_hash: str, transaction_hash: str) -> str:
    """Phase 2 of the direct path: the change is recalled by its compose hash.

    Raises:
        ApiError: 466, 468, 467, 409, 500.
    """
    try:
        recalled = recall(world, cvm, compose_hash, source="patch")
        if recalled is None:
            raise errors.hash_invalid_or_expired()
        _check_chain(world, cvm, recalled.compose_hash, transaction_hash, unregistered=468)
        return _spend(world, cvm, recalled, "confirm", transaction_hash)
    except errors.ApiError as error:
        _refused(world, cvm, "confirm", error)
        raise


def commit_provisioned(world: World, cvm: Cvm, provisioned: Prepare, options: Json) -> str:
    """Second step of the two-step compose file update; `options` are the members of its body.

    Raises:
        ApiError: 468, 409, 500.
    """
    try:
        _check_chain(world, cvm, provisioned.compose_hash, "", unregistered=468)
        document = json.loads(provisioned.compose)
        if options.get("update_env_vars") and options.get("env_keys") is not None:
            document["allowed_envs"] = options["env_keys"]
        members = {} if options.get("encrypted_env") is None else {"encrypted_env": options["encrypted_env"]}
        changed = replace(provisioned, compose=compose.canonical(document), members=json.dumps(members))
        return _spend(world, cvm, changed, "compose_file", "")
    except errors.ApiError as error:
        _refused(world, cvm, "compose_file", error)
        raise


def live_prepare(world: World, cvm: Cvm, token: str) -> Prepare:
    """What a token stands for, if it still counts.

    Raises:
        ApiError: 466 for a token that is unknown, another CVM's, expired, superseded or spent, or whose CVM
            has got another compose since.
    """
    prepared = prepare_by_token(world.database, token)
    if prepared is None or prepared.cvm_id != cvm.id or not _counts(world, cvm, prepared):
        raise errors.hash_invalid_or_expired()
    return prepared


def recall(world: World, cvm: Cvm, compose_hash: str, *, source: str) -> Prepare | None:
    """The youngest compose remembered without a token under this hash, if it still counts."""
    row = world.database.one(
        "SELECT * FROM prepares WHERE cvm_id = ? AND compose_hash = ? AND source = ? AND spent_at IS NULL"
        " ORDER BY id DESC",
        cvm.id,
        _bare(compose_hash),
        source,
    )
    found = None if row is None else Prepare(**dict(row))
    return found if found is not None and _counts(world, cvm, found) else None


def _counts(world: World, cvm: Cvm, prepared: Prepare) -> bool:
    return (
        prepared.spent_at is None
        and prepared.superseded_at is None
        and prepared.expires_at > world.clock.now()
        and prepared.base_hash == cvm.compose_hash
    )


def _check_chain(world: World, cvm: Cvm, compose_hash: str, transaction_hash: str, *, unregistered: int) -> None:
    """The allowlist first, then the transaction.

    A hash that is not on the list is 465 at commit-update, but 468 where the transaction shows that it once
    was registered, and on the direct path. Phala documents both statuses for it.
    """
    if kms_by_id(world.database, cvm.kms_id).chain_id is None:
        return
    state_check_only = transaction_hash in ALREADY_REGISTERED
    try:
        allowance = world.chain.allowance(cvm.app_address, compose_hash, cvm.device_id)
        proven = not state_check_only and world.chain.registers(
            transaction_hash,
            cvm.app_address,
            compose_hash,
        )
    except ChainUnavailableError as error:
        raise errors.plain(HTTPStatus.INTERNAL_SERVER_ERROR, "KMS configuration or RPC error") from error
    if not allowance.compose_hash_allowed:
        if proven or unregistered == errors.HASH_NOT_ALLOWED:
            raise errors.hash_not_allowed()
        raise errors.hash_registration_required([{"field": "compose_hash", "value": compose_hash}])
    if not state_check_only and not proven:
        raise errors.tx_verification_failed()


def _spend(world: World, cvm: Cvm, prepared: Prepare, kind: str, transaction_hash: str) -> str:
    """One transaction: the token is spent and the operation runs, or neither."""
    with world.database.transaction():
        row = world.database.one("SELECT * FROM prepares WHERE id = ?", prepared.id)
        cvm_now = cvm_by_id(world.database, cvm.id)
        if row is None or not _counts(world, cvm_now, Prepare(**dict(row))):
            raise errors.hash_invalid_or_expired()
        update = Update(prepared.compose, json.loads(prepared.members))
        correlation_id = operations.start(world, cvm_now, "compose_update", update)
        world.database.update("prepares", prepared.id, spent_at=world.clock.now())
        world.record(
            kind,
            cvm.vm_uuid,
            accepted=True,
            compose_hash=prepared.compose_hash,
            transaction_hash=transaction_hash,
            correlation_id=correlation_id,
        )
    world.ring()
    return correlation_id


def _refused(world: World, cvm: Cvm, kind: str, error: errors.ApiError) -> None:
    body: Json = error.body
    world.record(kind, cvm.vm_uuid, accepted=False, status=error.status, error_code=body.get("error_code"))


def _bare(compose_hash: str) -> str:
    return compose_hash.lower().removeprefix("0x")
