"""Answers of the update functions."""

from typing import Annotated, Literal

from pydantic import Discriminator, SecretStr

from service.phala.models.base import Model
from service.phala.models.kms import KmsInfo, KmsSummary


class OnchainStatus(Model):
    """What the contract allowed when the update was prepared: a snapshot, to be read again on chain."""

    compose_hash_allowed: bool
    device_id_allowed: bool
    is_allowed: bool


class PatchApplied(Model):
    """202: the patch was accepted and is being applied; ``correlation_id`` names the operation."""

    requires_on_chain_hash: Literal[False] = False
    correlation_id: str


class PatchPrepared(Model):
    """465: nothing was changed; the compose hash must be registered on chain first.

    ``compose_hash``, ``app_id`` and ``device_id`` are as received: 64, 40 and 64 hex digits, with or without ``0x``, in
    any case (`service.phala.identifiers.normalize_compose_hash` and its siblings settle that). Token, URLs and the
    on-chain status come with prepare-only requests. Whoever holds the token can commit: token and URLs are secrets.
    """

    requires_on_chain_hash: Literal[True] = True
    compose_hash: str
    app_id: str
    device_id: str
    kms_info: KmsSummary
    commit_token: SecretStr | None = None
    commit_url: SecretStr | None = None
    api_commit_url: SecretStr | None = None
    onchain_status: OnchainStatus | None = None


PatchResult = Annotated[PatchApplied | PatchPrepared, Discriminator("requires_on_chain_hash")]


class PatchConfirmed(Model):
    """202 to the second phase of a patch."""

    correlation_id: str


class CommitAccepted(Model):
    """202 to a commit: the CVM restarts on the new compose. ``status`` is the server's word for it, if it gave one."""

    correlation_id: str
    status: str | None = None


class UpdateInProgress(Model):
    """202 to one of the single-field updates."""

    status: Literal["in_progress"]
    message: str = ""
    correlation_id: str


class EnvsUpdateInProgress(UpdateInProgress):
    """202 to an update of the environment."""

    allowed_envs_changed: bool


class PreconditionRequired(Model):
    """465 to one of the single-field updates: register ``compose_hash``, then call again with the transaction."""

    status: Literal["precondition_required"] = "precondition_required"
    message: str = ""
    compose_hash: str
    app_id: str
    device_id: str = ""
    kms_info: KmsSummary


class ComposeFileProvision(Model):
    """A provisioned compose file, kept by the server for 14 days. ``compose_hash`` is the server's."""

    app_id: str | None = None
    device_id: str | None = None
    compose_hash: str
    kms_info: KmsInfo | None = None
    compose_hash_registered: bool = False


class InstanceIdRefresh(Model):
    """What became of one CVM's recorded instance id."""

    cvm_id: int | str
    identifier: str
    status: Literal["updated", "unchanged", "skipped", "conflict", "error"]
    old_instance_id: str | None = None
    new_instance_id: str | None = None
    source: Literal["teepod_state", "teepod_info", "gateway", "none"] = "none"
    verified_with_gateway: bool = False
    reason: str | None = None


class InstanceIdRefreshes(Model):
    """The same for many CVMs, with counts."""

    total: int
    scanned: int
    updated: int
    unchanged: int
    skipped: int
    conflicts: int
    errors: int
    items: tuple[InstanceIdRefresh, ...] = ()
