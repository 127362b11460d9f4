"""What the API answers. Hashes are ``0x``-prefixed lower case, addresses checksummed, times UTC."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.domain.actors import ActorKind
from service.domain.alerts import AlertCode
from service.domain.api_keys import Scope
from service.domain.reasons import Reason
from service.domain.signatures import SignatureKind
from service.domain.snapshots import Intake, ProposalState, SafeTransactionState
from service.domain.states import State

NO_ACTOR: Final = "Who did it; null in what was written before this was kept"
PREVIOUS_HASH: Final = "`hash` of the event before it in its chain, 64 zeros for none; null as `actor`"
OWN_HASH: Final = "SHA-256 over the event and `previous_hash`, see docs/operations.md; null as `actor`"


class _Answer(BaseModel):
    """Members without a value are null, never absent."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class Cvm(_Answer):
    """The CVM: as the request named it, and as Phala Cloud resolved it."""

    id: str
    vm_uuid: str | None
    name: str | None


class Chain(_Answer):
    """The chain of the app contract; ``name`` is the EIP-3770 short name, null if no longer configured."""

    id: int
    name: str | None


class Call(_Answer):
    """One call that reaches the app contract."""

    to: str
    function: str
    argument: str
    calldata: str


class SafeLinks(_Answer):
    """Where owners find the transaction in Safe{Wallet}, and the Safe in a block explorer."""

    safe_app_queue: str | None
    safe_app_transaction: str | None
    safe_explorer: str | None


class SafeFacts(_Answer):
    """The Safe as the chain had it when a change request last joined the proposal."""

    version: str
    singleton: str | None = Field(description="The contract that the Safe runs")
    l2: bool | None = Field(description="Whether it is the variant with events for indexers; null if unpublished")
    guard: str | None = Field(description="Contract that may refuse every execution")
    modules: list[str] = Field(description="Contracts that may act for the Safe without its owners")
    more_modules: bool = Field(description="Whether there are others than those in `modules`")
    module_guard: str | None = Field(description="Contract that may refuse what modules do")
    threshold: int
    owners: list[str]
    owners_eip3770: list[str] | None


class Rejection(_Answer):
    """The empty transaction at the same nonce by which an approval is withdrawn."""

    nonce: int
    safe_tx_hash: str
    state: SafeTransactionState
    note: str


class OwnerSignature(_Answer):
    """A verified signature of a current owner."""

    owner: str
    kind: SignatureKind = Field(
        description="`eip712`, `eth_sign`, or `approved_hash` for one given on chain with `approveHash`"
    )


class AlertOut(_Answer):
    """Something about the approval that wants a person's eyes."""

    model_config = ConfigDict(title="Alert")

    code: AlertCode
    message: str
    advice: str


class SafeApproval(_Answer):
    """An approval by a Safe's owners. Members of the Safe transaction are null until it is made."""

    kind: Literal["safe"]
    state: ProposalState
    safe: str
    safe_eip3770: str | None = Field(description="The same with the chain's short name in front")
    safe_facts: SafeFacts | None
    nonce: int | None
    safe_tx_hash: str | None
    target: str | None = Field(description="`to` of the Safe transaction")
    calldata: str | None = Field(description="`data` of the Safe transaction")
    operation: int | None = Field(description="0 CALL, 1 DELEGATECALL (only the canonical MultiSendCallOnly)")
    calls: list[Call] = Field(description="What reaches the app contract, in order")
    devices: list[str] = Field(description="Devices that the transaction allows beside the hash")
    confirmations: list[str] = Field(description="Current owners whose signature was verified")
    signatures: list[OwnerSignature] = Field(description="The same with the kind of each signature")
    contract_signatures: list[str] = Field(
        description="Current owners with a contract's signature (EIP-1271), which is not verified here and not counted"
    )
    missing: list[str] = Field(description="Current owners who have not signed")
    threshold: int | None
    ready: bool = Field(description="Whether enough owners signed and one of them can execute it")
    alerts: list[AlertOut] = Field(description="Oldest first; each was sent as `change_request.alert`")
    rejection: Rejection | None
    detail: str | None
    links: SafeLinks


class ExternalApproval(_Answer):
    """An approval that somebody gives outside of a Safe of this workspace."""

    kind: Literal["external"]
    state: ProposalState
    owner: str | None = Field(description="Owner of the app contract when the request asked; null if it tells none")
    owner_eip3770: str | None
    owner_explorer_url: str | None
    note: str = Field(description="Who has to act")
    target: str = Field(description="The app contract")
    calldata: str | None = Field(description="Calldata of the one call needed; null if `calls` has several")
    calls: list[Call] = Field(description="Everything that the contract's owner has to call, in order")
    devices: list[str]
    detail: str | None


Approval = Annotated[SafeApproval | ExternalApproval, Field(discriminator="kind")]


class Execution(_Answer):
    """Where the approval was seen on chain; ``transaction_hash`` is null when only the state was seen."""

    transaction_hash: str | None
    block_number: int | None
    block_hash: str
    explorer_url: str | None


class Commit(_Answer):
    """The commit at Phala Cloud."""

    attempted_at: datetime | None
    correlation_id: str | None


class ReasonOut(_Answer):
    """Why it ended, or what it waits for."""

    model_config = ConfigDict(title="Reason")

    code: Reason
    advice: str
    detail: str | None


class Next(_Answer):
    """When the service looks again, and how often in a row that failed."""

    due_at: datetime | None
    attempts: int
    waiting_for: Reason | None


class TokenRefresh(_Answer):
    """Renewal of the commit token."""

    by_service: bool = Field(description="Whether the service knows the patch, and renews the token itself")
    requested_at: datetime | None = Field(description="When it was asked for, until it is done")
    attempts: int = Field(description="How often in a row it failed")
    next_attempt_at: datetime | None
    reason: ReasonOut | None = Field(description="Why the last try failed")


class ChangeRequestLinks(_Answer):
    """Routes of this change request."""

    self: str
    events: str
    cancel: str
    refresh: str


class ChangeRequestOut(_Answer):
    """A change of one CVM on its way."""

    model_config = ConfigDict(title="ChangeRequest")

    id: str
    object: Literal["change_request"] = "change_request"
    workspace: str
    state: State
    state_meaning: str
    title: str | None
    intake: Intake
    cvm: Cvm
    chain: Chain | None
    app_contract: str | None
    app_contract_eip3770: str | None = Field(description="The same with the chain's short name in front")
    app_contract_explorer_url: str | None
    device_id: str | None
    compose_hash: str | None
    patch: list[str] | None = Field(description="Names of the members to change")
    allow_without_approval: bool
    approval: Approval | None
    execution: Execution | None
    commit: Commit | None
    running_evidence: str | None = Field(description="What proved that the CVM runs the approved hash")
    reason: ReasonOut | None
    next: Next | None = Field(description="Null once it has ended")
    warnings: list[str]
    cancel_requested_at: datetime | None
    deadline_at: datetime
    token_expires_at: datetime | None
    token_refresh: TokenRefresh
    created_at: datetime
    updated_at: datetime
    state_entered_at: datetime
    prepared_at: datetime | None
    links: ChangeRequestLinks


class ChangeRequestList(_Answer):
    """One page, newest first."""

    object: Literal["list"] = "list"
    items: list[ChangeRequestOut]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null on the last")


class ActorOut(_Answer):
    """Who did it."""

    model_config = ConfigDict(title="Actor")

    kind: ActorKind
    id: str | None = Field(description="Of an API key, or of the event by which Phala Cloud told")
    name: str | None = Field(description="Of the API key, the operator, or the part of the service")
    owners: list[str] = Field(description="Owners of the Safe whose signatures are held")


class EventOut(_Answer):
    """Something that happened to a change request; webhooks carry the same members but ``id`` and ``seq``."""

    model_config = ConfigDict(title="Event")

    id: str
    seq: int = Field(description="Counts from 1 without gaps, per change request")
    type: str
    state: State = Field(description="State after the event")
    timestamp: datetime
    data: dict[str, Any]
    actor: ActorOut | None = Field(description=NO_ACTOR)
    previous_hash: str | None = Field(description=PREVIOUS_HASH)
    hash: str | None = Field(description=OWN_HASH)


class EventList(_Answer):
    """Events in order."""

    object: Literal["list"] = "list"
    items: list[EventOut]
    last_seq: int = Field(description="Give it as `after` to read on")


class Health(_Answer):
    """An answer to a probe."""

    status: Literal["ok", "ready", "degraded"]


class ApiKeyOut(_Answer):
    """An API key, without what makes it one."""

    model_config = ConfigDict(title="ApiKey", from_attributes=True)

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    scope: Scope
    works: bool = Field(description="Neither revoked nor expired")
    hint: str = Field(description="How the key begins")
    created_by: str = Field(description="`command line`, or the id of the key that made it")
    replaces: str | None = Field(description="The key that this one was made from by rotation")
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To within a minute")


class NewApiKeyOut(ApiKeyOut):
    """An API key as it is handed out."""

    model_config = ConfigDict(title="NewApiKey")

    key: str = Field(description="Shown this once; only its hash is kept")


class ApiKeyList(_Answer):
    """API keys."""

    model_config = ConfigDict(title="ApiKeys")

    object: Literal["list"] = "list"
    items: list[ApiKeyOut]


class ChainWatch(StrEnum):
    """Whether a chain is read."""

    NOT_READ_YET = "not_read_yet"
    UP_TO_DATE = "up_to_date"
    CATCHING_UP = "catching_up"
    FAILING = "failing"


class CatchUp(_Answer):
    """Final blocks there were to read when catching up began, and those that are left."""

    blocks_total: int
    blocks_left: int


class ChainStatus(_Answer):
    """How far a chain was read; numbers are null until it was read once."""

    id: int
    name: str
    status: ChainWatch
    head_block: int | None = Field(description="Highest block that was seen")
    final_block: int | None
    read_to_block: int | None = Field(description="Everything up to this final block was read")
    looked_at: datetime | None = Field(description="When the chain last answered")
    age_seconds: float | None = Field(description="How long ago that was")
    failed_looks: int = Field(description="How many looks failed since then")
    catch_up: CatchUp | None = Field(description="Null when nothing is left behind")


class ChainList(_Answer):
    """The configured chains, by id."""

    items: list[ChainStatus]


class Readiness(Health):
    """An answer to the probe of readiness, with what each part does. Parts that only degrade do not fail it."""

    parts: dict[str, str]
