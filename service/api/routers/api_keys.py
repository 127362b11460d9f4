"""Routes of API keys: those of the caller's workspace, up to the caller's own scope."""

from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Body, Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from service.api import examples
from service.api.auth import require
from service.api.cursors import KEY_ID
from service.api.deps import Caller, ManageDep
from service.api.description import example, failures
from service.api.fields import Line
from service.api.problems import (
    API_KEY_ENDED,
    BODY_TOO_LARGE,
    INVALID_REQUEST,
    MALFORMED_JSON,
    NOT_FOUND,
    TOO_MANY_API_KEYS,
    UNSUPPORTED_MEDIA_TYPE,
    Problem,
)
from service.api.route import ApiRoute
from service.api.schemas import ApiKeyList, ApiKeyOut, NewApiKeyOut
from service.domain.api_keys import Scope
from service.store import api_keys
from service.store.api_keys import KeyEnded, NewKey, TooManyKeys
from service.store.tables import ApiKey

_DAY: Final = 86_400
LONGEST_LIFE: Final = 10 * 365 * _DAY
LONGEST_OVERLAP: Final = 90 * _DAY
_BODY_PROBLEMS: Final = (MALFORMED_JSON, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST)

router = APIRouter(prefix="/v1/api-keys", tags=["API keys"], route_class=ApiRoute)


class CreateKeyBody(BaseModel):
    """A key of the caller's workspace."""

    model_config = ConfigDict(extra="forbid", strict=True, title="CreateApiKey")

    name: Annotated[Line, Field(description="For people: who uses it")]
    scope: Annotated[Scope, Field(strict=False, description="What it may do; each scope includes those before it")]
    expires_in_seconds: Annotated[
        Annotated[int, Field(ge=60, le=LONGEST_LIFE)] | None, Field(description="Never if left out")
    ] = None


class RotateKeyBody(BaseModel):
    """How a key is replaced."""

    model_config = ConfigDict(extra="forbid", strict=True, title="RotateApiKey")

    overlap_seconds: Annotated[
        int, Field(ge=0, le=LONGEST_OVERLAP, description="How long the old key goes on working; a day if left out")
    ] = _DAY


def _possible_id(key_id: str) -> str:
    if not KEY_ID.fullmatch(key_id):
        _known(None)
    return key_id


def _known(row: ApiKey | None) -> ApiKey:
    if row is None:
        raise Problem(NOT_FOUND, "There is no such API key in the workspace of this API key.")
    return row


KeyId = Annotated[str, AfterValidator(_possible_id), Path(description="`key_...`")]


def _show(row: ApiKey) -> ApiKeyOut:
    return ApiKeyOut.model_validate(row)


def _show_new(made: tuple[ApiKey, SecretStr]) -> NewApiKeyOut:
    row, key = made
    return NewApiKeyOut(**_show(row).model_dump(), key=key.get_secret_value())


def _too_many() -> Problem:
    return Problem(TOO_MANY_API_KEYS, f"{TOO_MANY_API_KEYS.meaning} {TOO_MANY_API_KEYS.remedy}")


@router.post(
    "",
    status_code=201,
    summary="Create an API key",
    responses=example(201, "NewApiKey", "The key, shown this once") | failures(*_BODY_PROBLEMS, TOO_MANY_API_KEYS),
)
def create(
    body: Annotated[CreateKeyBody, Body(openapi_examples=examples.CREATE_KEY)], caller: ManageDep
) -> NewApiKeyOut:
    """Create a key of the workspace, at most of the caller's own scope. The answer alone holds it."""
    require(caller.holder, body.scope)
    lifetime = None if body.expires_in_seconds is None else timedelta(seconds=body.expires_in_seconds)
    asked = NewKey(caller.workspace_id, body.name, body.scope, caller.holder.key_id, lifetime)
    try:
        made = api_keys.create(caller.database, asked, caller.actor)
    except TooManyKeys:
        raise _too_many() from None
    return _show_new(made)


@router.get("", summary="List API keys", responses=example(200, "ApiKeys", "Those that work, newest first"))
def listing(caller: ManageDep) -> ApiKeyList:
    """List the workspace's keys that work, newest first."""
    with caller.database.transaction() as session:
        rows = api_keys.listing(session, caller.workspace_id)
    return ApiKeyList(items=[_show(row) for row in rows])


@router.get(
    "/{key_id}",
    summary="Read an API key",
    responses=example(200, "ApiKey", "The key, without what makes it one") | failures(NOT_FOUND),
)
def read(key_id: KeyId, caller: ManageDep) -> ApiKeyOut:
    """Read about a key, also one that ended."""
    return _show(_row(caller, key_id))


@router.delete(
    "/{key_id}",
    summary="Revoke an API key",
    responses=example(200, "ApiKey", "It does not work any more") | failures(NOT_FOUND),
)
def revoke(key_id: KeyId, caller: ManageDep) -> ApiKeyOut:
    """End a key at once, also the caller's own. To revoke it twice changes nothing."""
    require(caller.holder, Scope(_row(caller, key_id).scope))
    row = _known(api_keys.revoke(caller.database, caller.workspace_id, key_id, caller.actor))
    return _show(row)


@router.post(
    "/{key_id}/rotate",
    status_code=201,
    summary="Rotate an API key",
    responses=example(201, "NewApiKey", "The new key, shown this once")
    | failures(NOT_FOUND, *_BODY_PROBLEMS, API_KEY_ENDED, TOO_MANY_API_KEYS),
)
def rotate(
    key_id: KeyId, body: Annotated[RotateKeyBody, Body(openapi_examples=examples.ROTATE_KEY)], caller: ManageDep
) -> NewApiKeyOut:
    """Create a key that does the same and lives as long. The old one works until the overlap ends."""
    require(caller.holder, Scope(_row(caller, key_id).scope))
    overlap = timedelta(seconds=body.overlap_seconds)
    try:
        made = api_keys.rotate(
            caller.database,
            caller.workspace_id,
            key_id,
            overlap=overlap,
            created_by=caller.holder.key_id,
            actor=caller.actor,
        )
    except KeyEnded:
        raise Problem(API_KEY_ENDED, f"{API_KEY_ENDED.meaning} {API_KEY_ENDED.remedy}") from None
    except TooManyKeys:
        raise _too_many() from None
    return _show_new(made)


def _row(caller: Caller, key_id: str) -> ApiKey:
    with caller.database.transaction() as session:
        return _known(api_keys.get(session, caller.workspace_id, key_id))
