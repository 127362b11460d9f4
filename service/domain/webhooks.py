"""Outbound webhooks: states, faults and event types, as tables. Pure."""

from collections.abc import Sequence
from enum import StrEnum

from service.domain.acts import Act
from service.domain.outcomes import Notice
from service.domain.states import State

HOLDING_STEPS = 3
"""A delivery that failed holds back later events of its change request until it failed this often."""


class EndpointState(StrEnum):
    """What happens with an endpoint's events."""

    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"
    DELETED = "deleted"


class ManagedBy(StrEnum):
    """Who says what an endpoint is: the REST API, or the workspace file."""

    API = "api"
    FILE = "file"


class DisabledReason(StrEnum):
    """Why the service disabled an endpoint."""

    RECEIVER_GONE = "receiver_gone"
    KEEPS_FAILING = "keeps_failing"


class DeliveryState(StrEnum):
    """How far an event is on its way to one endpoint."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    DROPPED = "dropped"


class Fault(StrEnum):
    """Why an attempt failed; public and stable."""

    ADDRESS_REFUSED = "address_refused"
    NO_CONNECTION = "no_connection"
    NO_ANSWER = "no_answer"
    BAD_STATUS = "bad_status"
    SECRET_UNREADABLE = "secret_unreadable"  # noqa: S105 - a public code, no secret
    INTERNAL_ERROR = "internal_error"


class EndpointEvent(StrEnum):
    """Events about endpoints, sent as ``webhook_endpoint.<event>``."""

    DISABLED = "disabled"
    TEST = "test"


OURS = frozenset({Fault.SECRET_UNREADABLE, Fault.INTERNAL_ERROR})
"""Faults that say nothing about the receiver."""

DISABLED_ADVICE: dict[DisabledReason, str] = {
    DisabledReason.RECEIVER_GONE: (
        "The receiver answered 410 Gone. Change the URL or delete the endpoint; if the answer was a mistake, resume "
        "the endpoint and replay what it missed."
    ),
    DisabledReason.KEEPS_FAILING: (
        "No delivery succeeded for days. Repair the receiver, resume the endpoint, and replay what it missed."
    ),
}

FAULT_ADVICE: dict[Fault, str] = {
    Fault.ADDRESS_REFUSED: (
        "The URL leads to an address that webhooks must not reach. Use a public https address, or ask the operator "
        "to add the host to COUNTERSIGN_WEBHOOK_ALLOWED_HOSTS."
    ),
    Fault.NO_CONNECTION: "Check that the host resolves, that the port is open, and that its certificate is valid.",
    Fault.NO_ANSWER: "Answer within 10 seconds: take the event, answer 2xx, and do slow work afterwards.",
    Fault.BAD_STATUS: "Only 2xx counts as delivered; redirects are not followed. Look at what the receiver answered.",
    Fault.SECRET_UNREADABLE: (
        "The operator puts the key that sealed the secret back into COUNTERSIGN_ENCRYPTION_KEYS and restarts the "
        "workers."
    ),
    Fault.INTERNAL_ERROR: "Nothing to do: the service tries again; the operator finds the error in the worker's log.",
}

EVENT_TYPES: tuple[str, ...] = (
    *(f"change_request.{name}" for name in (*State, *Notice)),
    *(f"webhook_endpoint.{name}" for name in EndpointEvent),
)
"""Every type of event that is sent."""
FEED_TYPES: tuple[str, ...] = (*EVENT_TYPES, *Act)
"""Every type of event that is in the feed."""


def wants(patterns: Sequence[str], event_type: str) -> bool:
    """Whether a filter lets an event through; without patterns everything goes.

    Args:
        patterns: event types, or prefixes such as ``change_request.*``.
        event_type: the event's.
    """
    return not patterns or any(_fits(pattern, event_type) for pattern in patterns)


def _fits(pattern: str, event_type: str) -> bool:
    if pattern.endswith("*"):
        return event_type.startswith(pattern[:-1])
    return pattern == event_type


def known_pattern(pattern: str, types: Sequence[str] = EVENT_TYPES) -> bool:
    """Whether a pattern is one of the event types, or the beginning of one up to a dot and ``*``."""
    if pattern.endswith("*") and not pattern.endswith(".*"):
        return False
    return any(_fits(pattern, event_type) for event_type in types)
