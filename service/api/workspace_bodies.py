"""What callers send about their workspace. Secrets go in and never come out."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from service.api.fields import AppAddress, Line
from service.domain.api_keys import Scope
from service.domain.gates import MOST_PARALLEL, CommitPolicy
from service.domain.webhook_signature import SHORTEST_KEY
from service.domain.workspaces import (
    LONGEST_DEADLINE,
    LONGEST_RETENTION,
    LONGEST_RUN_DEADLINE,
    LONGEST_SECRET,
    MOST_WEBHOOK_SECRETS,
    SHORTEST_DEADLINE,
    SHORTEST_PHALA_KEY,
    SHORTEST_RETENTION,
    SHORTEST_RUN_DEADLINE,
)
from service.store.workspace_settings import Changes

_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+")
_COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "policy": {
        "submit": "submit_scope",
        "cancel": "cancel_scope",
        "release": "release_scope",
        "cancel_own_only": "cancel_own_only",
        "allow_without_approval": "allow_without_approval",
    },
    "deadlines": {"request_seconds": "deadline_seconds", "run_seconds": "run_deadline_seconds"},
    "commits": {"policy": "commit_policy", "parallel": "parallel_commits"},
    "retention": {"events_days": "event_retention_days", "deliveries_days": "delivery_retention_days"},
}
"""Columns by member and its member."""


def _secret(value: SecretStr) -> SecretStr:
    """A secret goes into a header, or was shown by somebody: it has neither blanks nor line breaks."""
    if not _PRINTABLE.fullmatch(value.get_secret_value()):
        raise ValueError("must be printable ASCII characters without blanks")
    return value


def _more_than_read(scope: Scope) -> Scope:
    if scope is Scope.READ:
        raise ValueError("a key of scope read only reads: give submit, manage or admin")
    return scope


PhalaKey = Annotated[
    SecretStr, Field(min_length=SHORTEST_PHALA_KEY, max_length=LONGEST_SECRET), AfterValidator(_secret)
]
HookSecret = Annotated[SecretStr, Field(min_length=SHORTEST_KEY, max_length=LONGEST_SECRET), AfterValidator(_secret)]
LeastScope = Annotated[
    Scope,
    Field(strict=False, json_schema_extra={"enum": ["submit", "manage", "admin"]}),
    AfterValidator(_more_than_read),
]
Days = Annotated[int, Field(ge=SHORTEST_RETENTION, le=LONGEST_RETENTION)]


class _Changes(BaseModel):
    """Members that are left out stay as they are; null is no value, but where it says what it means."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)
    nullable: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="after")
    def _says_what_it_means(self) -> Self:
        for name in sorted(self.model_fields_set - self.nullable):
            if getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null: leave it out to keep it")
        return self


class PolicyChange(_Changes):
    """Who may do what: the least scope that a key needs."""

    submit: Annotated[LeastScope | None, Field(description="To submit and refresh")] = None
    cancel: Annotated[LeastScope | None, Field(description="To cancel")] = None
    release: Annotated[LeastScope | None, Field(description="To release a commit that is held")] = None
    cancel_own_only: Annotated[
        bool | None, Field(description="Whether a key below `manage` cancels only what it submitted")
    ] = None
    allow_without_approval: Annotated[
        bool | None, Field(description="Whether requests may ask for changes that need no approval")
    ] = None


class DeadlinesChange(_Changes):
    """How long things may take, in seconds."""

    request_seconds: Annotated[
        Annotated[int, Field(ge=SHORTEST_DEADLINE, le=LONGEST_DEADLINE)] | None,
        Field(description="A request up to its commit; holds for those submitted from now on"),
    ] = None
    run_seconds: Annotated[
        Annotated[int, Field(ge=SHORTEST_RUN_DEADLINE, le=LONGEST_RUN_DEADLINE)] | None,
        Field(description="A committed update until the CVM runs it"),
    ] = None


class CommitsChange(_Changes):
    """When commits follow their approvals."""

    policy: Annotated[
        Annotated[CommitPolicy, Field(strict=False)] | None,
        Field(description="`hold`: an approved change request waits for its release, unless it says otherwise"),
    ] = None
    parallel: Annotated[
        Annotated[int, Field(ge=1, le=MOST_PARALLEL)] | None,
        Field(description="How many CVMs of one app may be updated at the same time"),
    ] = None


class RetentionChange(_Changes):
    """How long history is kept, in days; null for good."""

    nullable = frozenset({"events_days", "deliveries_days"})

    events_days: Annotated[Days | None, Field(description="Events of a request, from its end")] = None
    deliveries_days: Annotated[Days | None, Field(description="Deliveries that ended, with their attempts")] = None


class WorkspaceChange(_Changes):
    """What is to be set."""

    nullable = frozenset({"name"})

    name: Annotated[Line | None, Field(description="For people; null for none")] = None
    phala_api_key: Annotated[
        PhalaKey | None, Field(description="Of the Phala Cloud account; may read and update its CVMs")
    ] = None
    phala_webhook_secrets: Annotated[
        Annotated[list[HookSecret], Field(max_length=MOST_WEBHOOK_SECRETS)] | None,
        Field(description="All secrets with which Phala Cloud signs its webhooks to this workspace, as it shows them"),
    ] = None
    policy: PolicyChange = PolicyChange()
    deadlines: DeadlinesChange = DeadlinesChange()
    commits: CommitsChange = CommitsChange()
    retention: RetentionChange = RetentionChange()

    def changes(self) -> Changes:
        """The same as the store takes it."""
        columns: dict[str, Any] = {}
        if "name" in self.model_fields_set:
            columns["name"] = self.name
        for part, names in _COLUMNS.items():
            told: BaseModel = getattr(self, part)
            columns |= {names[member]: value for member, value in told.model_dump(exclude_unset=True).items()}
        return Changes(columns, self.phala_api_key, self.phala_webhook_secrets)


class ContractBody(BaseModel):
    """A contract on a chain: a Safe, or an app."""

    model_config = ConfigDict(extra="forbid", strict=True, title="RegisterContract")

    chain_id: Annotated[
        Annotated[int, Field(gt=0, le=2**63 - 1)] | None,
        Field(description="May be left out where the address says the chain"),
    ] = None
    address: Annotated[AppAddress, Field(description="`0x...`, or with the chain in front: `base:0x...` (EIP-3770)")]
