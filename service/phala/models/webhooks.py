"""Events that Phala Cloud sends."""

from typing import Any, Literal

from pydantic import Field, SecretStr

from service.phala.models.base import Model, UtcDatetime


class EventWorkspace(Model):
    """Where it happened. ``id`` is the workspace's slug."""

    id: str | None = None
    name: str | None = None


class WebhookEvent(Model):
    """Any event. ``id`` (``evt_...``) is the key by which repeated deliveries are recognised.

    ``data`` is as received; it does not show in ``repr``, because some events carry commit tokens.
    """

    id: str = Field(min_length=1)
    event: str = Field(min_length=1)
    version: str | None = None
    created_at: UtcDatetime
    workspace: EventWorkspace = Field(default_factory=EventWorkspace)
    data: Any = Field(default=None, repr=False)


class PendingKms(Model):
    """The KMS contract: it is never the target of the approval."""

    chain_id: int
    contract_address: str | None = None


class OnchainAction(Model):
    """What the owners have to do. ``to`` is the app contract.

    ``calldata`` is what the server calls calldata: **the bare compose hash**, not an encoded call.
    """

    to: str
    method: str | None = None
    calldata: str | None = None


class Initiator(Model):
    """Who prepared the update."""

    user_id: int | str | None = None
    username: str | None = None


class PendingApprovalData(Model):
    """A prepared update. Hashes and ids are 0x-prefixed, ``cvm_id`` is the dashed vm_uuid, the last three secret."""

    cvm_id: str
    cvm_name: str | None = None
    compose_hash: str
    app_id: str
    device_id: str
    kms: PendingKms
    onchain_action: OnchainAction
    expires_at: UtcDatetime
    initiated_by: Initiator | None = None
    commit_token: SecretStr
    commit_url: SecretStr | None = None
    api_commit_url: SecretStr | None = None


class PendingApproval(WebhookEvent):
    """``cvm.update.pending_approval``: somebody prepared an update that a contract has to approve."""

    event: Literal["cvm.update.pending_approval"]
    data: PendingApprovalData


class Webhook(Model):
    """A receiver that is registered in the workspace. ``secret`` is told once, when it is made."""

    id: str = Field(min_length=1)
    url: str
    events: tuple[str, ...]
    enabled: bool
    name: str | None = None
    secret: SecretStr | None = None
    created_at: UtcDatetime
    updated_at: UtcDatetime


class WebhookDelivery(Model):
    """One event on its way to one receiver, as last tried; ``original_event_id`` is empty unless it was sent again.

    The values of ``status`` are not documented: ``pending``, ``success`` and ``failed`` are what to expect.
    """

    event_id: str = Field(min_length=1)
    event_type: str
    original_event_id: str = ""
    status: str
    attempts: int
    request_url: str
    response_status: int
    error_message: str = Field(repr=False)
    duration_ms: int = 0
    created_at: UtcDatetime
    delivered_at: UtcDatetime | None = None
