"""Accounts at Phala Cloud that are searched for what did not arrive; at which block a proposal was approved.

Revision: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_CODES = (
    "'events_lost', 'unknown_update', 'webhook_disabled', 'webhook_not_registered', 'webhook_not_subscribed',"
    " 'webhooks_not_listed'"
)


def _workspace() -> sa.Column[str]:
    return sa.Column("workspace_id", sa.Text(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "phala_recoveries",
        _workspace(),
        sa.Column("settled_to", sa.DateTime(timezone=True)),
        sa.Column("last_app", sa.Text()),
        sa.Column("looked_at", sa.DateTime(timezone=True)),
        sa.Column("detail", sa.Text()),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("rung_at", sa.DateTime(timezone=True)),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", name="pk_phala_recoveries"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="fk_phala_recoveries_workspace_id"),
    )
    op.create_index(
        "ix_phala_recoveries_due_at", "phala_recoveries", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.create_table(
        "missed_events",
        _workspace(),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("asks", sa.BigInteger(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "event_id", name="pk_missed_events"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="fk_missed_events_workspace_id"),
    )
    op.create_table(
        "workspace_alerts",
        _workspace(),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("app_contract", sa.Text()),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("raised_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("workspace_id", "code", "subject", name="pk_workspace_alerts"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="fk_workspace_alerts_workspace_id"),
        sa.CheckConstraint(f"code IN ({_CODES})", name=op.f("ck_workspace_alerts_code")),
    )
    op.add_column("proposals", sa.Column("approved_at_block", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("proposals", "approved_at_block")
    op.drop_table("workspace_alerts")
    op.drop_table("missed_events")
    op.drop_table("phala_recoveries")
