"""What the API and the operator's command answer about a workspace, and how it comes from rows. Nothing secret."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api import links
from service.domain.api_keys import Scope
from service.domain.gates import CommitPolicy
from service.domain.reasons import ADVICE, Reason
from service.domain.workspaces import PolicyAct
from service.store import api_keys
from service.store.standing import Hindrance
from service.store.tables import ExternalApp, RegisteredSafe, Workspace
from service.wiring import ChainLinks


class _Answer(BaseModel):
    """Members without a value are null, never absent."""

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class PhalaOut(_Answer):
    """How the workspace speaks to Phala Cloud, and Phala Cloud to it. The secrets themselves are never shown."""

    model_config = ConfigDict(title="WorkspacePhala")

    base_url: str = Field(description="Phala Cloud's API; the operator sets it")
    api_key_set_at: datetime
    webhook_secrets: int = Field(description="How many secrets of Phala Cloud's webhooks count")
    webhook_secrets_set_at: datetime | None
    webhook_url: str = Field(description="Where Phala Cloud's webhooks go")


class PolicyOut(_Answer):
    """Who may do what: the least scope that a key needs."""

    model_config = ConfigDict(title="WorkspacePolicy")

    submit: Scope
    cancel: Scope
    release: Scope
    cancel_own_only: bool = Field(description="Whether a key below `manage` cancels only what it submitted")
    allow_without_approval: bool


class DeadlinesOut(_Answer):
    """How long things may take, in seconds."""

    model_config = ConfigDict(title="WorkspaceDeadlines")

    request_seconds: int
    run_seconds: int


class CommitsOut(_Answer):
    """When commits follow their approvals."""

    model_config = ConfigDict(title="WorkspaceCommits")

    policy: CommitPolicy
    parallel: int = Field(description="How many CVMs of one app may be updated at the same time")
    frozen: bool = Field(description="Whether all commits are held, see `/v1/workspace/freeze`")


class RetentionOut(_Answer):
    """How long history is kept, in days; null for good."""

    model_config = ConfigDict(title="WorkspaceRetention")

    events_days: int | None
    deliveries_days: int | None


class BlockOut(_Answer):
    """One thing that keeps change requests waiting."""

    model_config = ConfigDict(title="WorkspaceBlock")

    code: Reason
    subject: str | None = Field(
        description="`phala:key`, `phala:read:<CVM>`, `phala:update:<CVM>` or `safe:<chain id>:<address>`; null where "
        "the operator blocked the workspace"
    )
    detail: str
    advice: str
    since: datetime
    seen_at: datetime | None = Field(description="When it was met last")


class WorkspaceOut(_Answer):
    """A workspace."""

    model_config = ConfigDict(title="Workspace")

    id: str
    object: Literal["workspace"] = "workspace"
    slug: str
    name: str | None
    phala: PhalaOut
    policy: PolicyOut
    deadlines: DeadlinesOut
    commits: CommitsOut
    retention: RetentionOut
    blocked: bool = Field(description="Whether `blocks` has anything")
    blocks: list[BlockOut]
    created_at: datetime


class ContractOut(_Answer):
    """A contract that the workspace registered."""

    model_config = ConfigDict(title="RegisteredContract")

    id: str = Field(description="Chain id and address, as in the path")
    object: Literal["safe", "external_app"]
    chain_id: int
    chain: str | None = Field(description="The chain's short name; null if it is not configured")
    address: str
    eip3770: str | None = Field(description="The address with the chain's short name in front")
    explorer_url: str | None
    created_at: datetime


class ContractList(_Answer):
    """Contracts by chain and address."""

    model_config = ConfigDict(title="RegisteredContracts")

    object: Literal["list"] = "list"
    items: list[ContractOut]


def workspace(row: Workspace, hindrances: Sequence[Hindrance], public_url: str) -> WorkspaceOut:
    """A workspace as it is shown."""
    policy = api_keys.policy_of(
        row.submit_scope, row.cancel_scope, row.release_scope, cancel_own_only=row.cancel_own_only
    )
    return WorkspaceOut(
        id=row.id,
        slug=row.slug,
        name=row.name,
        phala=PhalaOut(
            base_url=row.phala_base_url,
            api_key_set_at=row.phala_api_key_set_at,
            webhook_secrets=len(row.phala_webhook_secrets_sealed),
            webhook_secrets_set_at=row.phala_webhook_secrets_set_at,
            webhook_url=f"{public_url}/v1/hooks/phala/{row.slug}",
        ),
        policy=PolicyOut(
            **{act.value: policy.least[act] for act in PolicyAct},
            cancel_own_only=policy.cancel_own_only,
            allow_without_approval=row.allow_without_approval,
        ),
        deadlines=DeadlinesOut(request_seconds=row.deadline_seconds, run_seconds=row.run_deadline_seconds),
        commits=CommitsOut(
            policy=CommitPolicy(row.commit_policy),
            parallel=row.parallel_commits,
            frozen=row.commits_frozen_at is not None,
        ),
        retention=RetentionOut(events_days=row.event_retention_days, deliveries_days=row.delivery_retention_days),
        blocked=bool(hindrances),
        blocks=[_block(one) for one in hindrances],
        created_at=row.created_at,
    )


def _block(one: Hindrance) -> BlockOut:
    return BlockOut(
        code=one.reason,
        subject=one.subject,
        detail=one.detail,
        advice=ADVICE[one.reason],
        since=one.since,
        seen_at=one.seen_at,
    )


def contract(row: RegisteredSafe | ExternalApp, chains: Mapping[int, ChainLinks]) -> ContractOut:
    """A registered contract as it is shown."""
    chain = chains.get(row.chain_id)
    return ContractOut(
        id=f"{row.chain_id}:{row.address}",
        object="safe" if isinstance(row, RegisteredSafe) else "external_app",
        chain_id=row.chain_id,
        chain=chain.name if chain else None,
        address=row.address,
        eip3770=links.eip3770(chain, row.address),
        explorer_url=links.explorer_address(chain, row.address),
        created_at=row.created_at,
    )
