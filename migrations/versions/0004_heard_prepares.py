"""Heard prepares, every token ever held, countdown and renewal of tokens.

Revision: 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

_INTAKE = "ck_change_requests_intake"


def upgrade() -> None:
    op.add_column(
        "workspaces",
        sa.Column(
            "phala_webhook_secrets_sealed",
            postgresql.ARRAY(sa.LargeBinary()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
    )
    for name in (
        "refresh_requested_at",
        "refresh_attempted_at",
        "refresh_due_at",
        "other_hash_since",
    ):
        op.add_column("change_requests", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "change_requests",
        sa.Column("refresh_attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    for name in ("refresh_reason", "refresh_detail"):
        op.add_column("change_requests", sa.Column(name, sa.Text(), nullable=True))
    for name in ("token_told", "deadline_told"):
        op.add_column("change_requests", sa.Column(name, sa.BigInteger(), nullable=True))
    op.drop_constraint(op.f(_INTAKE), "change_requests")
    op.create_check_constraint(op.f(_INTAKE), "change_requests", "intake IN ('patch', 'prepared', 'webhook')")
    op.create_table(
        "commit_tokens",
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("change_request_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["change_request_id"], ["change_requests.id"], name=op.f("fk_commit_tokens_change_request_id")
        ),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_commit_tokens")),
    )
    op.create_index("ix_commit_tokens_change_request_id", "commit_tokens", ["change_request_id"])
    op.execute(
        "INSERT INTO commit_tokens (fingerprint, change_request_id) SELECT commit_token_fingerprint, id"
        " FROM change_requests WHERE commit_token_fingerprint IS NOT NULL"
    )
    _inbound_events()


def _inbound_events() -> None:
    op.create_table(
        "inbound_events",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("vm_uuid", sa.Text(), nullable=False),
        sa.Column("cvm_name", sa.Text(), nullable=True),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("app_contract", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("compose_hash", sa.Text(), nullable=False),
        sa.Column("token_fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("token_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("change_request_id", sa.Text(), nullable=True),
        sa.CheckConstraint("verdict IN ('adopt', 'echo', 'ignore', 'new')", name=op.f("ck_inbound_events_verdict")),
        sa.CheckConstraint(
            "(verdict IS NULL) = (token_sealed IS NOT NULL)", name=op.f("ck_inbound_events_decided_holds_no_token")
        ),
        sa.CheckConstraint("(verdict IS NULL) = (decided_at IS NULL)", name=op.f("ck_inbound_events_decided_has_time")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_inbound_events_workspace_id")),
        sa.ForeignKeyConstraint(
            ["change_request_id"], ["change_requests.id"], name=op.f("fk_inbound_events_change_request_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbound_events")),
        sa.UniqueConstraint("workspace_id", "event_id", name=op.f("uq_inbound_events_workspace_id_event_id")),
        sa.UniqueConstraint(
            "workspace_id", "token_fingerprint", name=op.f("uq_inbound_events_workspace_id_token_fingerprint")
        ),
    )
    op.create_index("ix_inbound_events_vm_uuid", "inbound_events", ["workspace_id", "vm_uuid"])
    op.create_index(
        "ix_inbound_events_undecided",
        "inbound_events",
        ["workspace_id", "vm_uuid"],
        postgresql_where=sa.text("verdict IS NULL"),
    )
    op.create_index("ix_inbound_events_change_request_id", "inbound_events", ["change_request_id"])


def downgrade() -> None:
    """Change requests that came by webhook stay, as prepared ones."""
    op.drop_table("inbound_events")
    op.drop_table("commit_tokens")
    op.drop_constraint(op.f(_INTAKE), "change_requests")
    op.execute("UPDATE change_requests SET intake = 'prepared' WHERE intake = 'webhook'")
    op.create_check_constraint(op.f(_INTAKE), "change_requests", "intake IN ('patch', 'prepared')")
    for name in (
        "deadline_told",
        "token_told",
        "refresh_detail",
        "refresh_reason",
        "refresh_attempts",
        "other_hash_since",
        "refresh_due_at",
        "refresh_attempted_at",
        "refresh_requested_at",
    ):
        op.drop_column("change_requests", name)
    op.drop_column("workspaces", "phala_webhook_secrets_sealed")
