"""The first tables.

Revision: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "chain_cursors",
        sa.Column("chain_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=True),
        sa.Column("block_hash", sa.Text(), nullable=True),
        sa.Column("head_number", sa.BigInteger(), nullable=True),
        sa.Column("final_number", sa.BigInteger(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rung_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("chain_id", name=op.f("pk_chain_cursors")),
    )
    op.create_table(
        "chain_facts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("app_contract", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("transaction_hash", sa.Text(), nullable=False),
        sa.Column("block_hash", sa.Text(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("log_index", sa.BigInteger(), nullable=False),
        sa.Column("orphaned_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "kind IN ('any_device_set', 'device_added', 'device_removed', 'hash_added', 'hash_removed')",
            name=op.f("ck_chain_facts_kind"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chain_facts")),
        sa.UniqueConstraint(
            "chain_id",
            "transaction_hash",
            "block_hash",
            "log_index",
            name=op.f("uq_chain_facts_chain_id_transaction_hash_block_hash_log_index"),
        ),
    )
    op.create_index("ix_chain_facts_block_number", "chain_facts", ["chain_id", "block_number"], unique=False)
    op.create_index("ix_chain_facts_value", "chain_facts", ["chain_id", "app_contract", "value"], unique=False)
    op.create_table(
        "heartbeats",
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("process", name=op.f("pk_heartbeats")),
    )
    op.create_table(
        "workspaces",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("phala_base_url", sa.Text(), nullable=False),
        sa.Column("phala_api_key_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("allow_without_approval", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("deadline_seconds", sa.BigInteger(), server_default=sa.text("2592000"), nullable=False),
        sa.Column("run_deadline_seconds", sa.BigInteger(), server_default=sa.text("3600"), nullable=False),
        sa.Column("blocked_reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("deadline_seconds > 0", name=op.f("ck_workspaces_deadline")),
        sa.CheckConstraint("run_deadline_seconds > 0", name=op.f("ck_workspaces_run_deadline")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspaces")),
        sa.UniqueConstraint("slug", name=op.f("uq_workspaces_slug")),
    )
    op.create_table(
        "external_apps",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_external_apps_workspace_id")),
        sa.PrimaryKeyConstraint("workspace_id", "chain_id", "address", name=op.f("pk_external_apps")),
    )
    op.create_table(
        "proposals",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("app_contract", sa.Text(), nullable=False),
        sa.Column("compose_hash", sa.Text(), nullable=False),
        sa.Column("devices", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("safe", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rung_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            "(state IN ('posting', 'queued', 'withdrawing')) = (due_at IS NOT NULL)",
            name=op.f("ck_proposals_served_is_due"),
        ),
        sa.CheckConstraint("state <> 'external' OR safe IS NULL", name=op.f("ck_proposals_external_has_no_safe")),
        sa.CheckConstraint(
            "NOT (state IN ('posting', 'queued', 'withdrawing')) OR safe IS NOT NULL",
            name=op.f("ck_proposals_served_has_safe"),
        ),
        sa.CheckConstraint(
            "state IN ('approved', 'external', 'failed', 'posting', 'queued', 'rejected', 'withdrawing', 'withdrawn')",
            name=op.f("ck_proposals_state"),
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_proposals_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proposals")),
    )
    op.create_index(
        "ix_proposals_due_at", "proposals", ["due_at"], unique=False, postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.create_index("ix_proposals_workspace_id", "proposals", ["workspace_id"], unique=False)
    op.create_index(
        "uq_proposals_live_identity",
        "proposals",
        ["workspace_id", "chain_id", "app_contract", "compose_hash", "devices"],
        unique=True,
        postgresql_where=sa.text("state IN ('external', 'posting', 'queued', 'withdrawing')"),
    )
    op.create_table(
        "safes",
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_safes_workspace_id")),
        sa.PrimaryKeyConstraint("workspace_id", "chain_id", "address", name=op.f("pk_safes")),
    )
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_webhook_endpoints_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoints")),
        sa.UniqueConstraint("workspace_id", "url", name=op.f("uq_webhook_endpoints_workspace_id_url")),
    )
    op.create_table(
        "change_requests",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("state_entered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("intake", sa.Text(), nullable=False),
        sa.Column("cvm_id", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("patch", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("allow_without_approval", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("warnings", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("vm_uuid", sa.Text(), nullable=True),
        sa.Column("cvm_name", sa.Text(), nullable=True),
        sa.Column("chain_id", sa.BigInteger(), nullable=True),
        sa.Column("app_contract", sa.Text(), nullable=True),
        sa.Column("device_id", sa.Text(), nullable=True),
        sa.Column("compose_hash", sa.Text(), nullable=True),
        sa.Column("commit_token_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("commit_token_fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("token_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("prepare_attempted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("prepared_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("proposal_id", sa.Text(), nullable=True),
        sa.Column("approvals_seen", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("transaction_hash", sa.Text(), nullable=True),
        sa.Column("evidence_block_hash", sa.Text(), nullable=True),
        sa.Column("evidence_block_number", sa.BigInteger(), nullable=True),
        sa.Column("commit_attempt_id", sa.Text(), nullable=True),
        sa.Column("commit_attempted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("commit_refused_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("correlation_id", sa.Text(), nullable=True),
        sa.Column("running_evidence", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_event_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rung_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            "(state IN ('cancelled', 'completed', 'expired', 'failed', 'rejected', 'superseded')) = (due_at IS NULL)",
            name=op.f("ck_change_requests_live_is_due"),
        ),
        sa.CheckConstraint(
            "NOT (state IN ('cancelled', 'completed', 'expired', 'failed', 'rejected', 'superseded')) OR commit_token_sealed IS NULL",
            name=op.f("ck_change_requests_ended_holds_no_token"),
        ),
        sa.CheckConstraint(
            "NOT (state IN ('executed', 'prepared', 'proposed', 'registered')) OR (vm_uuid IS NOT NULL AND chain_id IS NOT NULL AND app_contract IS NOT NULL AND device_id IS NOT NULL AND compose_hash IS NOT NULL AND commit_token_sealed IS NOT NULL)",
            name=op.f("ck_change_requests_prepared_holds_hash_and_token"),
        ),
        sa.CheckConstraint(
            "NOT (state IN ('executed', 'registered')) OR evidence_block_hash IS NOT NULL",
            name=op.f("ck_change_requests_on_chain_has_evidence"),
        ),
        sa.CheckConstraint(
            "compose_hash IS NULL OR compose_hash ~ '^0x[0-9a-f]{64}$'", name=op.f("ck_change_requests_compose_hash")
        ),
        sa.CheckConstraint(
            "device_id IS NULL OR device_id ~ '^0x[0-9a-f]{64}$'", name=op.f("ck_change_requests_device_id")
        ),
        sa.CheckConstraint("intake <> 'patch' OR patch IS NOT NULL", name=op.f("ck_change_requests_patch")),
        sa.CheckConstraint("intake IN ('patch', 'prepared')", name=op.f("ck_change_requests_intake")),
        sa.CheckConstraint(
            "state <> 'committed' OR commit_token_sealed IS NULL",
            name=op.f("ck_change_requests_committed_holds_no_token"),
        ),
        sa.CheckConstraint(
            "state <> 'committed' OR compose_hash IS NOT NULL OR commit_attempted_at IS NULL",
            name=op.f("ck_change_requests_committed_has_hash"),
        ),
        sa.CheckConstraint(
            "state <> 'committed' OR correlation_id IS NOT NULL",
            name=op.f("ck_change_requests_committed_has_correlation_id"),
        ),
        sa.CheckConstraint(
            "state <> 'failed' OR reason IS NOT NULL", name=op.f("ck_change_requests_failed_has_reason")
        ),
        sa.CheckConstraint(
            "commit_token_sealed IS NULL OR commit_token_fingerprint IS NOT NULL",
            name=op.f("ck_change_requests_token_has_fingerprint"),
        ),
        sa.CheckConstraint(
            "state <> 'proposed' OR proposal_id IS NOT NULL", name=op.f("ck_change_requests_proposed_has_proposal")
        ),
        sa.CheckConstraint(
            "state IN ('cancelled', 'committed', 'completed', 'executed', 'expired', 'failed', 'prepared', 'proposed', 'received', 'registered', 'rejected', 'superseded')",
            name=op.f("ck_change_requests_state"),
        ),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposals.id"], name=op.f("fk_change_requests_proposal_id")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_change_requests_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_change_requests")),
        sa.UniqueConstraint("commit_token_fingerprint", name=op.f("uq_change_requests_commit_token_fingerprint")),
    )
    op.create_index(
        "ix_change_requests_awaiting",
        "change_requests",
        ["chain_id", "app_contract"],
        unique=False,
        postgresql_where=sa.text("state IN ('executed', 'prepared', 'proposed', 'registered')"),
    )
    op.create_index(
        "ix_change_requests_becoming_final",
        "change_requests",
        ["chain_id", "evidence_block_number"],
        unique=False,
        postgresql_where=sa.text("state = 'executed'"),
    )
    op.create_index(
        "ix_change_requests_due_at",
        "change_requests",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index("ix_change_requests_proposal_id", "change_requests", ["proposal_id"], unique=False)
    op.create_index("ix_change_requests_workspace_id", "change_requests", ["workspace_id", "id"], unique=False)
    op.create_index(
        "uq_change_requests_live_cvm",
        "change_requests",
        ["workspace_id", "vm_uuid"],
        unique=True,
        postgresql_where=sa.text("state IN ('executed', 'prepared', 'proposed', 'received', 'registered')"),
    )
    op.create_table(
        "safe_transactions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("proposal_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("safe", sa.Text(), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=False),
        sa.Column("to", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("operation", sa.BigInteger(), nullable=False),
        sa.Column("safe_tx_hash", sa.Text(), nullable=False),
        sa.Column("confirmations", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("threshold", sa.BigInteger(), nullable=True),
        sa.Column("transaction_hash", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('approval', 'rejection')", name=op.f("ck_safe_transactions_kind")),
        sa.CheckConstraint(
            "state IN ('deleted', 'executed', 'intended', 'queued', 'replaced')",
            name=op.f("ck_safe_transactions_state"),
        ),
        sa.CheckConstraint("nonce >= 0", name=op.f("ck_safe_transactions_nonce")),
        sa.CheckConstraint("operation IN (0, 1)", name=op.f("ck_safe_transactions_operation")),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposals.id"], name=op.f("fk_safe_transactions_proposal_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_safe_transactions")),
        sa.UniqueConstraint("position", name=op.f("uq_safe_transactions_position")),
    )
    op.create_index("ix_safe_transactions_proposal_id", "safe_transactions", ["proposal_id"], unique=False)
    op.create_index("ix_safe_transactions_safe_tx_hash", "safe_transactions", ["safe_tx_hash"], unique=False)
    op.create_index(
        "uq_safe_transactions_live_approval",
        "safe_transactions",
        ["chain_id", "safe", "nonce"],
        unique=True,
        postgresql_where=sa.text("kind = 'approval' AND state IN ('intended', 'queued')"),
    )
    op.create_index(
        "uq_safe_transactions_live_approval_of_proposal",
        "safe_transactions",
        ["proposal_id"],
        unique=True,
        postgresql_where=sa.text("kind = 'approval' AND state IN ('intended', 'queued')"),
    )
    op.create_table(
        "events",
        sa.Column("position", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.Text(), nullable=False),
        sa.Column("change_request_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["change_request_id"], ["change_requests.id"], name=op.f("fk_events_change_request_id")
        ),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_events_workspace_id")),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_events")),
        sa.UniqueConstraint("change_request_id", "seq", name=op.f("uq_events_change_request_id_seq")),
        sa.UniqueConstraint("id", name=op.f("uq_events_id")),
    )
    op.create_index("ix_events_workspace_id", "events", ["workspace_id", "position"], unique=False)
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rung_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint(
            "(state = 'pending') = (due_at IS NOT NULL)", name=op.f("ck_webhook_deliveries_pending_is_due")
        ),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'failed')", name=op.f("ck_webhook_deliveries_state")),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["webhook_endpoints.id"], name=op.f("fk_webhook_deliveries_endpoint_id")
        ),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("fk_webhook_deliveries_event_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint("event_id", "endpoint_id", name=op.f("uq_webhook_deliveries_event_id_endpoint_id")),
    )
    op.create_index(
        "ix_webhook_deliveries_due_at",
        "webhook_deliveries",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index("ix_webhook_deliveries_endpoint_id", "webhook_deliveries", ["endpoint_id"], unique=False)
    op.create_table(
        "webhook_attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("attempted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["webhook_deliveries.id"], name=op.f("fk_webhook_attempts_delivery_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_attempts")),
    )
    op.create_index("ix_webhook_attempts_delivery_id", "webhook_attempts", ["delivery_id"], unique=False)


def downgrade() -> None:
    for table in (
        "webhook_attempts",
        "webhook_deliveries",
        "events",
        "safe_transactions",
        "change_requests",
        "webhook_endpoints",
        "safes",
        "proposals",
        "external_apps",
        "workspaces",
        "heartbeats",
        "chain_facts",
        "chain_cursors",
    ):
        op.drop_table(table)
