"""What clients send."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from service.api import examples
from service.api.fields import AppAddress, Bytes32, CommitToken, CvmId, Line, Lines, Link, Metadata, Time
from service.api.patch import Patch
from service.domain.conflicts import OnConflict
from service.domain.gates import CommitPolicy
from service.domain.workspaces import LONGEST_DEADLINE, SHORTEST_DEADLINE

ChainId = Annotated[int, Field(gt=0, le=2**63 - 1)]


class KmsInfo(BaseModel):
    """The key management service of a prepared update; only its chain is read."""

    model_config = ConfigDict(extra="ignore", strict=True)

    chain_id: ChainId | None = None


class PreparedUpdateBody(BaseModel):
    """What `phala deploy --prepare-only --json` printed, verbatim. Members not listed here are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, title="PreparedUpdate", hide_input_in_errors=True)

    success: Literal[True] = True
    prepare_only: Literal[True] = True
    compose_hash: Annotated[Bytes32, Field(description="32 bytes hex, with or without 0x")]
    app_id: Annotated[
        AppAddress,
        Field(
            description="The app contract; a mixed-case 0x address must have its checksum; the chain's EIP-3770 short "
            "name may stand in front (`base:0x...`)"
        ),
    ]
    device_id: Annotated[Bytes32, Field(description="32 bytes hex, with or without 0x")]
    chain_id: ChainId | None = None
    kms_info: KmsInfo | None = None
    commit_token: Annotated[CommitToken, Field(description="A credential: stored encrypted, deleted when spent")]
    api_commit_url: Annotated[
        SecretStr | None, Field(description="Read for the vm uuid if `cvm_id` is not given, then discarded")
    ] = None

    @field_validator("success", "prepare_only", mode="before")
    @classmethod
    def _was_prepared(cls, value: object) -> object:
        if value is False:
            raise ValueError("this output is not that of a prepared update: nothing waits for an approval")
        return value

    @property
    def chain(self) -> int | None:
        """Chain id as the output has it: in its own member or in ``kms_info``."""
        return self.chain_id or (self.kms_info.chain_id if self.kms_info else None)


class SubmitBody(BaseModel):
    """A change of one CVM: a `patch` for the service to prepare, or an update that is `prepared` already.

    A `prepared` update may come with the `patch` it was made from, so that it can be prepared again.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        title="SubmitChangeRequest",
        hide_input_in_errors=True,
        json_schema_extra={
            "anyOf": [{"required": ["patch", "cvm_id"]}, {"required": ["prepared"]}],
        },
    )

    cvm_id: CvmId | None = None
    patch: Patch | None = None
    prepared: PreparedUpdateBody | None = None
    title: Annotated[Line | None, Field(description="For people, in events and lists")] = None
    reason: Annotated[Lines | None, Field(description="Why this change; shown as `change_reason`")] = None
    links: Annotated[
        list[Link],
        Field(max_length=10, description="Commit, pull request, CI run: https only; shown as `change_links`"),
    ] = []
    metadata: Annotated[Metadata, Field(description="For your systems: at most 50 texts by names of your own")] = {}
    on_conflict: Annotated[
        OnConflict,
        Field(
            strict=False,
            description="Another live change request of the CVM: `refuse` this one, or `supersede` the other",
        ),
    ] = OnConflict.REFUSE
    commit_policy: Annotated[
        Annotated[CommitPolicy, Field(strict=False)] | None,
        Field(
            description="`hold`: once approved it waits for `POST .../release`; the workspace's policy if left out. "
            "`auto` in a workspace that holds needs scope `manage`"
        ),
    ] = None
    not_before: Annotated[Time | None, Field(description="No commit before this time, even if it is approved")] = None
    allow_without_approval: Annotated[
        bool,
        Field(
            description="Go on even if the change needs no on-chain approval and is applied at once, "
            "where the workspace permits that"
        ),
    ] = False
    deadline_seconds: Annotated[
        Annotated[int, Field(ge=SHORTEST_DEADLINE, le=LONGEST_DEADLINE)] | None,
        Field(description="Seconds until the request expires; the workspace's default if left out"),
    ] = None


class RetryBody(BaseModel):
    """How a change request is tried again."""

    model_config = ConfigDict(extra="forbid", strict=True, title="RetryChangeRequest")

    on_conflict: Annotated[OnConflict, Field(strict=False, description="As for a submission")] = OnConflict.REFUSE
    deadline_seconds: Annotated[
        Annotated[int, Field(ge=SHORTEST_DEADLINE, le=LONGEST_DEADLINE)] | None,
        Field(description="As long as the first one had if left out"),
    ] = None


class RefreshBody(BaseModel):
    """The same update, prepared again; left out where the service knows the patch and prepares it itself."""

    model_config = ConfigDict(extra="forbid", strict=True, title="RefreshChangeRequest", hide_input_in_errors=True)

    prepared: PreparedUpdateBody | None = None


REFRESH_EXAMPLES: Final[dict[str, Any]] = {
    "patch": {"summary": "The service prepares its patch again", "value": {}},
    "prepared": {"summary": "Prepared again by somebody else", "value": examples.REFRESH_PREPARED},
}
RETRY_EXAMPLES: Final[dict[str, Any]] = {
    "again": {"summary": "The same patch once more", "value": {}},
    "supersede": {"summary": "In place of what is under way", "value": {"on_conflict": "supersede"}},
}
SUBMIT_EXAMPLES: Final[dict[str, Any]] = {
    "patch": {"summary": "The service prepares", "value": examples.SUBMIT_PATCH},
    "prepared": {"summary": "Prepared by `phala deploy --prepare-only --json`", "value": examples.SUBMIT_PREPARED},
}
