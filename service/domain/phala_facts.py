"""What Phala Cloud says, reduced to what the flow decides on. Pure. Hashes are ``0x``-prefixed lower case."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class Cvm:
    """A CVM as Phala Cloud describes it.

    Attributes:
        vm_uuid: dashed.
        app_contract: checksummed DstackApp address, ``None`` without on-chain KMS.
        chain_id: chain of the on-chain KMS, ``None`` without.
        device_id: bytes32 of the node's device, if told.
        compose_hash: bytes32 of the configured document, if told.
    """

    vm_uuid: str
    name: str
    app_contract: str | None
    chain_id: int | None
    device_id: str | None
    compose_hash: str | None
    status: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """Answer 465 to a prepare."""

    compose_hash: str
    app_contract: str
    device_id: str
    chain_id: int | None
    commit_token: SecretStr


@dataclass(frozen=True, slots=True)
class AppliedAtOnce:
    """Answer 2xx to a prepare: the change is already being applied."""

    correlation_id: str


class OperationStatus(StrEnum):
    """Status of an operation."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of a CVM, grouped by its correlation id.

    Attributes:
        compose_hash: bytes32 that it brings, if told.
        is_update: whether it can be the effect of a patch; a restart or a stop cannot.
    """

    correlation_id: str
    status: OperationStatus
    started_at: datetime
    compose_hash: str | None
    error: str | None
    is_update: bool = True


@dataclass(frozen=True, slots=True)
class Running:
    """What runs in a CVM.

    Attributes:
        attested_hash: payload of the attestation's ``compose-hash`` event, if it could be read.
        reported_hash: the CVM info's hash.
        status: the CVM info's status.
    """

    attested_hash: str | None
    reported_hash: str | None
    status: str


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook that is registered at Phala Cloud."""

    id: str
    url: str
    enabled: bool
    events: frozenset[str]


@dataclass(frozen=True, slots=True)
class HookDelivery:
    """An event that Phala Cloud sent, or tried to send, to a webhook.

    Attributes:
        event_id: another one each time it is sent again.
        original_id: the id it was sent with first.
        event_type: such as ``cvm.update.pending_approval``.
        delivered: whether it was answered 2xx.
        failed: whether Phala Cloud says that it gave up.
        created_at: by Phala Cloud's clock.
    """

    event_id: str
    original_id: str
    event_type: str
    delivered: bool
    failed: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PendingUpdate:
    """An update that was prepared and not applied, as Phala Cloud lists it; ``vm_uuid`` dashed, hash bytes32."""

    vm_uuid: str
    compose_hash: str
