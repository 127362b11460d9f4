"""Workspaces as operators write them: the JSON file of ``countersign workspace apply``, and contracts by themselves."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from eth_utils.address import is_checksum_address
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from service.api.fields import Line
from service.api.workspace_bodies import PolicyChange, RetentionChange, WorkspaceChange
from service.domain import chain_names
from service.domain.gates import MOST_PARALLEL, CommitPolicy
from service.domain.webhook_signature import LONGEST_KEY, SECRET_PREFIX, SHORTEST_KEY, valid_secret
from service.domain.workspaces import (
    DEADLINE,
    LONGEST_DEADLINE,
    LONGEST_RUN_DEADLINE,
    RUN_DEADLINE,
    SHORTEST_DEADLINE,
    SHORTEST_RUN_DEADLINE,
)
from service.settings import SettingsError
from service.store.workspaces import WorkspaceSpec

PHALA_BASE_URL = "https://cloud-api.phala.com/api/v1"
_SLUG = r"^[a-z0-9][a-z0-9-]{0,62}$"
_SHORT_NAMES = "short_names"


def _checksummed(value: str) -> str:
    if not is_checksum_address(value):
        raise ValueError("is not a checksummed address (EIP-55)")
    return value


def _webhook_secret(value: SecretStr) -> SecretStr:
    if not valid_secret(value.get_secret_value()):
        raise ValueError(f"must be {SECRET_PREFIX} followed by base64 of {SHORTEST_KEY} to {LONGEST_KEY} bytes")
    return value


Address = Annotated[str, AfterValidator(_checksummed)]


def _phala_secret(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < SHORTEST_KEY:
        raise ValueError(f"must have at least {SHORTEST_KEY} characters; give it with its whsec_")
    return value


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class OnChain(_Part):
    """A contract on a chain: ``{"chain_id": 8453, "address": "0x.."}``, or ``"base:0x.."`` (EIP-3770)."""

    chain_id: int = Field(gt=0)
    address: Address

    @model_validator(mode="before")
    @classmethod
    def _with_chain_id(cls, value: object, info: ValidationInfo) -> object:
        written = {"address": value} if isinstance(value, str) else value
        if not isinstance(written, dict) or not isinstance(written.get("address"), str):
            return written
        short_name, address = chain_names.split(written["address"])
        if short_name is not None:
            told = chain_names.chain_id_of(short_name, (info.context or {}).get(_SHORT_NAMES, {}))
            if written.get("chain_id", told) != told:
                raise ValueError(f"{short_name!r} is chain {told}, but chain_id is another one")
            return {**written, "chain_id": told, "address": address}
        if "chain_id" not in written:
            raise ValueError("give chain_id, or the chain's short name in front of the address: base:0x...")
        return written


class Webhook(_Part):
    """An endpoint that gets the workspace's events."""

    url: str = Field(pattern=r"^https?://")
    secret: Annotated[SecretStr, AfterValidator(_webhook_secret)]


class WorkspaceFile(_Part):
    """A workspace; see ``docs/operations.md``."""

    slug: str = Field(pattern=_SLUG)
    name: Line | None = None
    phala_base_url: str = PHALA_BASE_URL
    phala_api_key: SecretStr
    safes: list[OnChain]
    external_apps: list[OnChain] = []
    allow_without_approval: bool = False
    deadline_seconds: int = Field(default=DEADLINE, ge=SHORTEST_DEADLINE, le=LONGEST_DEADLINE)
    run_deadline_seconds: int = Field(default=RUN_DEADLINE, ge=SHORTEST_RUN_DEADLINE, le=LONGEST_RUN_DEADLINE)
    commit_policy: CommitPolicy = CommitPolicy.AUTO
    parallel_commits: int = Field(default=1, gt=0, le=MOST_PARALLEL)
    policy: PolicyChange = PolicyChange()
    retention: RetentionChange = RetentionChange()
    webhooks: list[Webhook] = []
    phala_webhook_secrets: list[Annotated[SecretStr, AfterValidator(_phala_secret)]] = []


def read(text: str, short_names: Mapping[str, int]) -> WorkspaceSpec:
    """Read the file's text.

    Args:
        text: JSON.
        short_names: ids of the configured chains by their EIP-3770 short names.

    Raises:
        SettingsError: it is not what it should be; one line that names the member.
    """
    try:
        file = WorkspaceFile.model_validate_json(text, context={_SHORT_NAMES: short_names})
    except ValidationError as error:
        raise refusal(error, "the file") from None
    return WorkspaceSpec(
        slug=file.slug,
        phala_base_url=file.phala_base_url,
        phala_api_key=file.phala_api_key,
        safes=[(safe.chain_id, safe.address) for safe in file.safes],
        external_apps=[(app.chain_id, app.address) for app in file.external_apps],
        allow_without_approval=file.allow_without_approval,
        deadline_seconds=file.deadline_seconds,
        run_deadline_seconds=file.run_deadline_seconds,
        commit_policy=file.commit_policy,
        parallel_commits=file.parallel_commits,
        phala_webhook_secrets=file.phala_webhook_secrets,
        webhooks=[(hook.url, hook.secret) for hook in file.webhooks],
        more=_more(file),
    )


def _more(file: WorkspaceFile) -> Mapping[str, Any]:
    """What older files do not have: left out, it stays as it is."""
    told = {name: getattr(file, name) for name in ("name", "policy", "retention") if name in file.model_fields_set}
    return WorkspaceChange(**told).changes().columns


def refusal(error: ValidationError, whole: str) -> SettingsError:
    """The first thing that is wrong with something, as one line. ``whole`` names the thing itself."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    member = ".".join(str(part) for part in first["loc"]) or whole
    return SettingsError(f"workspace: {member}: {first['msg']}")


def checked_slug(slug: str) -> str:
    """A slug that a workspace may have.

    Raises:
        SettingsError: it may not.
    """
    if not re.fullmatch(_SLUG.strip("^$"), slug):
        raise SettingsError("workspace: a slug has up to 63 lower-case letters, digits and hyphens, no hyphen first")
    return slug


def contract(text: str, short_names: Mapping[str, int]) -> tuple[int, str]:
    """Chain id and checksummed address of ``base:0x..`` or ``8453:0x..``.

    Raises:
        SettingsError: it is none.
    """
    try:
        read = OnChain.model_validate(text, context={_SHORT_NAMES: short_names})
    except ValidationError as error:
        raise refusal(error, text) from None
    return read.chain_id, read.address
