"""What clients send about webhook endpoints, and how they ask for events and deliveries."""

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from service.api import webhook_examples as examples
from service.api.fields import ONE_LINE, Line
from service.domain.ids import form_of
from service.domain.webhook_signature import LONGEST_KEY, SECRET_PREFIX, SHORTEST_KEY, valid_secret
from service.domain.webhook_urls import LONGEST_URL
from service.domain.webhooks import FEED_TYPES, DeliveryState, known_pattern

_MOST_TYPES: Final = 50
_LONGEST_OVERLAP: Final = 7 * 86400
_NO_TYPE: Final = "is neither a type of event nor the beginning of one, such as change_request.*"


def _pattern(value: str) -> str:
    if not known_pattern(value):
        raise ValueError(_NO_TYPE)
    return value


def _secret(value: SecretStr) -> SecretStr:
    if not valid_secret(value.get_secret_value()):
        raise ValueError(f"must be {SECRET_PREFIX} followed by base64 of {SHORTEST_KEY} to {LONGEST_KEY} bytes")
    return value


def _types(value: str) -> str:
    if not all(known_pattern(pattern, FEED_TYPES) for pattern in value.split(",")):
        raise ValueError(_NO_TYPE)
    return value


Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LONGEST_URL,
        description="Where events are sent: https, on port 443 or from 1024 on, at a public address",
    ),
]
EventTypes = Annotated[
    list[Annotated[str, Field(max_length=100), AfterValidator(_pattern)]],
    Field(max_length=_MOST_TYPES, description="Types of events, and prefixes such as `change_request.*`; empty: all"),
]
Secret = Annotated[
    SecretStr,
    AfterValidator(_secret),
    Field(description="`whsec_` and base64 of 24 to 64 random bytes; made by the service if left out"),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class CreateEndpointBody(_Body):
    """A receiver of the workspace's events."""

    model_config = ConfigDict(title="CreateWebhookEndpoint")

    url: Url
    description: Annotated[Line | None, Field(description="For people")] = None
    event_types: EventTypes = []
    secret: Secret | None = None


class UpdateEndpointBody(_Body):
    """What is to change; members that are left out stay as they are."""

    model_config = ConfigDict(title="UpdateWebhookEndpoint", json_schema_extra={"minProperties": 1})

    url: Url | None = None
    description: Line | None = None
    event_types: EventTypes | None = None
    paused: Annotated[
        bool | None,
        Field(description="`true` holds deliveries, `false` lets them go in order and resumes a disabled endpoint"),
    ] = None

    @model_validator(mode="after")
    def _changes_something(self) -> "UpdateEndpointBody":
        if not self.model_fields_set:
            raise ValueError("give at least one member to change")
        for name in ("url", "event_types", "paused"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null: leave it out to keep it")
        return self


class RotateSecretBody(_Body):
    """How to replace the secret."""

    model_config = ConfigDict(title="RotateWebhookSecret")

    secret: Secret | None = None
    overlap_seconds: Annotated[
        int,
        Field(ge=0, le=_LONGEST_OVERLAP, description="How long the old secret signs beside the new one"),
    ] = 86400


Moment = Annotated[
    str,
    Field(max_length=64, pattern=ONE_LINE, description="A moment (RFC 3339, with its offset), or the id of an event"),
]


class ReplayBody(_Body):
    """Which events to send again; the ends of the range belong to it."""

    model_config = ConfigDict(title="ReplayWebhooks")

    since: Moment
    until: Annotated[Moment | None, Field(description="Likewise; the newest event if left out")] = None
    undelivered_only: Annotated[bool, Field(description="Leave out events that the endpoint took already")] = False


def moment(text: str) -> datetime | None:
    """An aware time in RFC 3339 form, ``None`` if it is none."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return None
    return value if value.tzinfo is not None else None


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DeliveriesQuery(_Query):
    """Which deliveries to list."""

    state: DeliveryState | None = None
    cursor: Annotated[str | None, Field(max_length=100, description="`next_cursor` of the page before")] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class FeedQuery(_Query):
    """Which events to read."""

    cursor: Annotated[str | None, Field(max_length=100, description="`next_cursor` of the page before")] = None
    types: Annotated[
        str | None,
        AfterValidator(_types),
        Field(
            max_length=2000, description="Types of events, and prefixes such as `change_request.*`, separated by commas"
        ),
    ] = None
    change_request_id: Annotated[str | None, Field(pattern=f"^{form_of('cr').pattern}$")] = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


CREATE_EXAMPLES: Final[dict[str, Any]] = {
    "all": {"summary": "All events, secret made by the service", "value": examples.CREATE},
    "some": {"summary": "Some events, with a secret of your own", "value": examples.CREATE_FILTERED},
}
UPDATE_EXAMPLES: Final[dict[str, Any]] = {
    "pause": {"summary": "Hold deliveries", "value": {"paused": True}},
    "filter": {"summary": "Change what is sent", "value": {"event_types": ["change_request.*"], "description": None}},
}
ROTATE_EXAMPLES: Final[dict[str, Any]] = {
    "default": {"summary": "Both secrets sign for a day", "value": {}},
    "at once": {"summary": "The old secret ends now", "value": {"overlap_seconds": 0}},
}
REPLAY_EXAMPLES: Final[dict[str, Any]] = {
    "times": {"summary": "An afternoon", "value": examples.REPLAY_TIMES},
    "events": {"summary": "From an event on, what was missed", "value": examples.REPLAY_EVENTS},
}
