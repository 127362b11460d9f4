"""The is-allowed answers, the device allowlist, and who owns an app contract."""

from collections.abc import Sequence
from dataclasses import replace

from sandbox.phala_cloud import errors
from sandbox.phala_cloud.chain import ChainUnavailableError
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.prepare import read_allowance
from sandbox.phala_cloud.records import Cvm, kms_by_id
from sandbox.phala_cloud.world import World

_HASH_BYTES = 32


def is_on_chain(world: World, cvm: Cvm) -> bool:
    """Whether the CVM's KMS asks a contract."""
    return kms_by_id(world.database, cvm.kms_id).chain_id is not None


def app_is_allowed(world: World, cvm: Cvm, compose_hash: str, device_id: str | None) -> Json:
    """IsAllowed for any hash, on any device (the CVM's own if None).

    Raises:
        ApiError: 400 for values that are not 32 bytes of hex; 500 without an answer from the chain.
    """
    bare_hash = _bytes32(compose_hash, "compose_hash")
    bare_device = _bytes32(device_id or cvm.device_id, "device_id")
    base: Json = {
        "app_contract_address": cvm.app_address,
        "compose_hash": bare_hash,
        "device_id": bare_device,
    }
    if not is_on_chain(world, cvm):
        return base | {
            "compose_hash_allowed": True,
            "allow_any_device": True,
            "device_id_allowed": None,
            "is_allowed": True,
            "error": "The app does not use on-chain KMS",
        }
    found = read_allowance(world, replace(cvm, device_id=bare_device), bare_hash)
    return base | {
        "compose_hash_allowed": found.compose_hash_allowed,
        "allow_any_device": found.allow_any_device,
        "device_id_allowed": found.device_id_allowed,
        "is_allowed": found.is_allowed,
        "error": None,
    }


def cvm_is_allowed(world: World, cvm: Cvm, compose_hash: str | None, device_id: str | None) -> Json:
    """IsAllowed for a CVM, by default with the hash it is configured with."""
    return {"cvm_id": cvm.id} | app_is_allowed(world, cvm, compose_hash or cvm.compose_hash, device_id)


def app_cvms_are_allowed(world: World, cvms: Sequence[Cvm]) -> Json:
    """IsAllowed for every CVM of an app."""
    on_chain = [cvm for cvm in cvms if is_on_chain(world, cvm)]
    results = [cvm_is_allowed(world, cvm, None, None) for cvm in on_chain]
    allowed = sum(result["is_allowed"] for result in results)
    return {
        "is_onchain": bool(on_chain),
        "results": results,
        "total": len(results),
        "allowed_count": allowed,
        "denied_count": len(results) - allowed,
        "error_count": 0,
        "skipped_cvm_ids": [cvm.id for cvm in cvms if cvm not in on_chain],
    }


def device_allowlist(world: World, cvms: Sequence[Cvm]) -> Json:
    """The devices an app's CVMs are on, and what the contract says about each."""
    first = cvms[0]
    if not is_on_chain(world, first):
        return {"is_onchain_kms": False, "devices": []}
    by_device: dict[str, list[Cvm]] = {}
    for cvm in cvms:
        by_device.setdefault(cvm.device_id, []).append(cvm)
    devices = []
    any_device = False
    for device_id, there in by_device.items():
        found = read_allowance(world, there[0], there[0].compose_hash)
        any_device = found.allow_any_device
        devices.append(
            {
                "device_id": device_id,
                "node_name": there[0].node_name,
                "cvm_ids": [cvm.id for cvm in there],
                "allowed_onchain": found.device_listed,
                "status": "allowed" if found.device_id_allowed else "not_allowed",
            },
        )
    return {
        "is_onchain_kms": True,
        "allow_any_device": any_device,
        "chain_id": kms_by_id(world.database, first.kms_id).chain_id,
        "app_contract_address": first.app_address,
        "devices": devices,
    }


def app_kms_info(world: World, cvm: Cvm) -> Json:
    """The app's KMS, its contract and who owns that."""
    key_service = kms_by_id(world.database, cvm.kms_id)
    if key_service.chain_id is None:
        return {"is_onchain_kms": False, "is_contract": False}
    try:
        owner = world.chain.owner(cvm.app_address)
        owner_type = None if owner is None else world.chain.account_type(owner)
    except ChainUnavailableError as error:
        raise errors.plain(500, "KMS configuration or RPC error") from error
    return {
        "is_onchain_kms": True,
        "chain_id": key_service.chain_id,
        "kms_contract_address": key_service.contract_address,
        "app_contract_address": cvm.app_address,
        "deployer_address": owner,
        "deployer_type": owner_type,
        "is_contract": owner_type in ("safe", "contract"),
        "safe_app_url": None,
    }


def _bytes32(value: str, field: str) -> str:
    bare = value.lower().removeprefix("0x")
    try:
        right = len(bytes.fromhex(bare)) == _HASH_BYTES
    except ValueError:
        right = False
    if not right:
        raise errors.bad_request(f"{field} must be 32 bytes of hex", field)
    return bare
