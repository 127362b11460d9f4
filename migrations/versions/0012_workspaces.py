"""Workspaces: policy, retention, what blocks them; who submitted a change request, and an index for whose events go.

Revision: 0012
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_SCOPES = "('admin', 'manage', 'submit')"
_CHECKS = {
    "submit_scope": f"submit_scope IN {_SCOPES}",
    "cancel_scope": f"cancel_scope IN {_SCOPES}",
    "release_scope": f"release_scope IN {_SCOPES}",
    "event_retention": "event_retention_days > 0",
    "delivery_retention": "delivery_retention_days > 0",
    "blocked_since": "(blocked_reason IS NULL) = (blocked_at IS NULL)",
}


def _time(name: str, *, now: bool = False) -> sa.Column[Any]:
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.DateTime(timezone=True), server_default=default, nullable=not now)


def _with_default(name: str, kind: sa.types.TypeEngine[Any], default: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, server_default=sa.text(default), nullable=nullable)


def upgrade() -> None:
    for column in (
        sa.Column("name", sa.Text(), nullable=True),
        _time("phala_api_key_set_at", now=True),
        _time("phala_webhook_secrets_set_at"),
        _with_default("submit_scope", sa.Text(), "'submit'"),
        _with_default("cancel_scope", sa.Text(), "'submit'"),
        _with_default("release_scope", sa.Text(), "'manage'"),
        _with_default("cancel_own_only", sa.Boolean(), "false"),
        _with_default("event_retention_days", sa.BigInteger(), "365", nullable=True),
        _with_default("delivery_retention_days", sa.BigInteger(), "90", nullable=True),
        _with_default("forgotten_transaction_id", sa.BigInteger(), "0"),
        _with_default("forgotten_position", sa.BigInteger(), "0"),
        _time("blocked_at"),
    ):
        op.add_column("workspaces", column)
    # Nobody knows when the secrets were set last; they are as old as the workspace at most.
    op.execute("UPDATE workspaces SET phala_api_key_set_at = created_at")
    op.execute(
        "UPDATE workspaces SET phala_webhook_secrets_set_at = created_at WHERE phala_webhook_secrets_sealed <> '{}'"
    )
    op.execute("UPDATE workspaces SET blocked_at = now() WHERE blocked_reason IS NOT NULL")
    for name, condition in _CHECKS.items():
        op.create_check_constraint(op.f(f"ck_workspaces_{name}"), "workspaces", condition)
    for table in ("safes", "external_apps"):
        op.add_column(table, _time("created_at", now=True))
    op.create_table(
        "workspace_faults",
        sa.Column(
            "workspace_id",
            sa.Text(),
            sa.ForeignKey("workspaces.id", name=op.f("fk_workspace_faults_workspace_id")),
            nullable=False,
        ),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        _time("since", now=True),
        _time("seen_at", now=True),
        sa.PrimaryKeyConstraint("workspace_id", "subject", name=op.f("pk_workspace_faults")),
    )
    op.add_column("change_requests", sa.Column("submitted_by", sa.Text(), nullable=True))
    op.create_index(
        "ix_change_requests_events_kept",
        "change_requests",
        ["workspace_id", "updated_at"],
        postgresql_where=sa.text("due_at IS NULL AND events_deleted_at IS NULL"),
    )
    op.create_index(
        "ix_webhook_deliveries_ended", "webhook_deliveries", ["created_at"], postgresql_where=sa.text("due_at IS NULL")
    )
    op.create_index(
        "ix_events_of_no_request",
        "events",
        ["workspace_id", "position"],
        postgresql_where=sa.text("change_request_id IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_events_of_no_request", "events")
    op.drop_index("ix_webhook_deliveries_ended", "webhook_deliveries")
    op.drop_index("ix_change_requests_events_kept", "change_requests")
    op.drop_column("change_requests", "submitted_by")
    op.drop_table("workspace_faults")
    for table in ("safes", "external_apps"):
        op.drop_column(table, "created_at")
    for name in _CHECKS:
        op.drop_constraint(op.f(f"ck_workspaces_{name}"), "workspaces")
    for name in (
        "blocked_at",
        "forgotten_position",
        "forgotten_transaction_id",
        "delivery_retention_days",
        "event_retention_days",
        "cancel_own_only",
        "release_scope",
        "cancel_scope",
        "submit_scope",
        "phala_webhook_secrets_set_at",
        "phala_api_key_set_at",
        "name",
    ):
        op.drop_column("workspaces", name)
