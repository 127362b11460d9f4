"""The caller itself, key management services, and OS images."""

import re
from typing import Annotated

from fastapi import APIRouter, Query

from sandbox.phala_cloud import errors, kms, os_images, shapes
from sandbox.phala_cloud.deps import Caller, WorldDep
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.reads import ApiVersion
from sandbox.phala_cloud.records import Kms, Workspace

router = APIRouter()

_APP_ID = re.compile(r"(?:0x)?([0-9a-f]{40})", re.IGNORECASE)


@router.get("/auth/me")
def get_current_user(caller: Caller, version: ApiVersion = None) -> Json:
    """The user and workspace of the API key."""
    return _user_legacy(caller) if version == shapes.LEGACY_VERSION else _user(caller)


@router.get("/kms")
def list_kms(
    world: WorldDep,
    _caller: Caller,
    page: Annotated[int, Query(ge=1)] = 1,
    page_size: Annotated[int, Query(ge=1, le=100)] = 30,
    *,
    is_onchain: bool | None = None,
) -> Json:
    """Key management services in pages."""
    found = [Kms(**dict(row)) for row in world.database.all("SELECT * FROM kms ORDER BY id")]
    wanted = [one for one in found if is_onchain is None or (one.chain_id is not None) is is_onchain]
    return _paged([kms.info(one) for one in wanted], page, page_size)


@router.get("/kms/{kms_id}")
def get_kms(world: WorldDep, _caller: Caller, kms_id: str) -> Json:
    """One KMS by id or slug."""
    return kms.info(_find_kms(world, kms_id))


@router.get("/kms/{kms_id}/pubkey/{app_id}")
def get_env_public_key(world: WorldDep, _caller: Caller, kms_id: str, app_id: str) -> Json:
    """The X25519 key an app's environment is encrypted to, signed by the KMS."""
    key_service = _find_kms(world, kms_id)
    match = _APP_ID.fullmatch(app_id)
    if match is None:
        raise errors.plain(400, "Invalid app ID format")
    bare = match[1].lower()
    return {
        "public_key": kms.env_public_key(key_service, bare).hex(),
        "signature": kms.sign_env_public_key(key_service, bare).hex(),
    }


@router.get("/os-images")
def list_os_images(
    _caller: Caller,
    page: Annotated[int, Query(ge=1)] = 1,
    page_size: Annotated[int, Query(ge=1, le=100)] = 30,
    *,
    is_dev: bool | None = None,
) -> Json:
    """Every OS image in pages."""
    wanted = [image for image in os_images.IMAGES if is_dev is None or image.is_dev is is_dev]
    return _paged([os_images.public(image) for image in wanted], page, page_size)


def _find_kms(world: WorldDep, identifier: str) -> Kms:
    found = kms.find(world.database, identifier)
    if found is None:
        raise errors.plain(404, "KMS not found")
    return found


def _paged(items: list[Json], page: int, page_size: int) -> Json:
    first = (page - 1) * page_size
    return {
        "items": items[first : first + page_size],
        "total": len(items),
        "page": page,
        "page_size": page_size,
        "pages": -(-len(items) // page_size),
    }


def _user(workspace: Workspace) -> Json:
    return {
        "user": {
            "username": workspace.username,
            "email": f"{workspace.username}@sandbox.invalid",
            "role": "user",
            "avatar": "",
            "email_verified": True,
            "totp_enabled": False,
            "has_backup_codes": False,
            "flag_has_password": True,
        },
        "workspace": {
            "id": workspace.hashed_id,
            "name": workspace.name,
            "slug": workspace.slug,
            "tier": "free",
            "role": "owner",
            "avatar": None,
        },
        "credits": {
            "balance": "100",
            "granted_balance": "0",
            "is_post_paid": False,
            "outstanding_amount": None,
        },
    }


def _user_legacy(workspace: Workspace) -> Json:
    return {
        "username": workspace.username,
        "email": f"{workspace.username}@sandbox.invalid",
        "credits": 100,
        "granted_credits": 0,
        "avatar": "",
        "team_name": workspace.name,
        "team_tier": "free",
    }
