"""Why a change request is made and what it follows; what may hold its commit; the freeze switch of a workspace.

Revision: 0010
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"

_TIME = sa.DateTime(timezone=True)
_HOLDS_CVM = "state IN ('executed', 'prepared', 'proposed', 'received', 'registered')"


def upgrade() -> None:
    _add_to_requests()
    _index_requests()
    op.add_column("workspaces", sa.Column("commit_policy", sa.Text(), server_default=sa.text("'auto'"), nullable=False))
    op.add_column(
        "workspaces", sa.Column("parallel_commits", sa.BigInteger(), server_default=sa.text("1"), nullable=False)
    )
    op.add_column("workspaces", sa.Column("commits_frozen_at", _TIME, nullable=True))
    op.add_column("workspaces", sa.Column("commits_frozen_by", sa.Text(), nullable=True))
    op.add_column("workspaces", sa.Column("commits_frozen_reason", sa.Text(), nullable=True))
    op.create_check_constraint("commit_policy", "workspaces", "commit_policy IN ('auto', 'hold')")
    op.create_check_constraint("parallel_commits", "workspaces", "parallel_commits > 0")
    op.create_check_constraint(
        "freeze", "workspaces", "num_nulls(commits_frozen_at, commits_frozen_by, commits_frozen_reason) IN (0, 3)"
    )


def _add_to_requests() -> None:
    for column in (
        sa.Column("change_reason", sa.Text(), nullable=True),
        sa.Column("change_links", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("change_metadata", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("retry_of", sa.Text(), nullable=True),
        sa.Column("on_conflict", sa.Text(), server_default=sa.text("'refuse'"), nullable=False),
        sa.Column("supersedes", sa.Text(), nullable=True),
        sa.Column("superseded_by", sa.Text(), nullable=True),
        sa.Column("commit_policy", sa.Text(), nullable=True),
        sa.Column("not_before", _TIME, nullable=True),
        sa.Column("released_at", _TIME, nullable=True),
        sa.Column("released_by", sa.Text(), nullable=True),
    ):
        op.add_column("change_requests", column)
    op.create_foreign_key("fk_change_requests_retry_of", "change_requests", "change_requests", ["retry_of"], ["id"])
    op.create_check_constraint("on_conflict", "change_requests", "on_conflict IN ('refuse', 'supersede')")
    op.create_check_constraint("commit_policy", "change_requests", "commit_policy IN ('auto', 'hold')")
    op.create_check_constraint(
        "released_by_somebody", "change_requests", "(released_at IS NULL) = (released_by IS NULL)"
    )


def _index_requests() -> None:
    op.create_index(
        "ix_change_requests_live_cvm_id",
        "change_requests",
        ["workspace_id", "cvm_id"],
        postgresql_where=sa.text(_HOLDS_CVM),
    )
    op.create_index("ix_change_requests_updated_at", "change_requests", ["workspace_id", "updated_at", "id"])
    op.create_index("ix_change_requests_retry_of", "change_requests", ["retry_of"])
    op.create_index(
        "ix_change_requests_committing",
        "change_requests",
        ["workspace_id", "chain_id", "app_contract"],
        postgresql_where=sa.text("state IN ('committed', 'registered')"),
    )
    op.create_index(
        "ix_change_requests_failed_updates",
        "change_requests",
        ["workspace_id", "chain_id", "app_contract", "compose_hash"],
        postgresql_where=sa.text("state = 'failed' AND correlation_id IS NOT NULL"),
    )


def downgrade() -> None:
    for constraint in ("freeze", "parallel_commits", "commit_policy"):
        op.drop_constraint(constraint, "workspaces", type_="check")
    for column in (
        "commits_frozen_reason",
        "commits_frozen_by",
        "commits_frozen_at",
        "parallel_commits",
        "commit_policy",
    ):
        op.drop_column("workspaces", column)
    for index in ("failed_updates", "committing", "retry_of", "updated_at", "live_cvm_id"):
        op.drop_index(f"ix_change_requests_{index}", "change_requests")
    for constraint in ("released_by_somebody", "commit_policy", "on_conflict"):
        op.drop_constraint(constraint, "change_requests", type_="check")
    for column in (
        "released_by",
        "released_at",
        "not_before",
        "commit_policy",
        "superseded_by",
        "supersedes",
        "on_conflict",
        "retry_of",
        "change_metadata",
        "change_links",
        "change_reason",
    ):
        op.drop_column("change_requests", column)
