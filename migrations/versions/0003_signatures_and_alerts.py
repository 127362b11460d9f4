"""How owners signed, what members are told, when a Safe and its queue were looked at, what is left to tidy up.

Revision: 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

_SERVED = "state IN ('posting', 'queued', 'withdrawing')"
_LOOK_AFTER = """
    UPDATE proposals SET due_at = now() WHERE state = 'approved' AND id IN (
        SELECT proposal_id FROM safe_transactions WHERE kind = 'approval' AND state IN ('intended', 'queued')
    )
"""


def upgrade() -> None:
    op.add_column(
        "change_requests", sa.Column("alerts_seen", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column("proposals", sa.Column("alerts", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False))
    op.add_column("proposals", sa.Column("safe_seen", postgresql.JSONB(none_as_null=True), nullable=True))
    for column in ("news_at", "queue_due_at", "delegate_checked_at"):
        op.add_column("proposals", sa.Column(column, sa.DateTime(timezone=True), nullable=True))
    op.drop_constraint(op.f("ck_proposals_served_is_due"), "proposals")
    op.create_check_constraint(
        op.f("ck_proposals_served_is_due"), "proposals", f"NOT ({_SERVED}) OR due_at IS NOT NULL"
    )
    op.create_check_constraint(
        op.f("ck_proposals_ended_is_not_due"),
        "proposals",
        f"due_at IS NULL OR {_SERVED} OR (state = 'approved' AND safe IS NOT NULL)",
    )
    op.add_column(
        "safe_transactions",
        sa.Column("signature_kinds", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
    )
    op.add_column(
        "safe_transactions",
        sa.Column("contract_signatures", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
    )
    op.add_column("safe_transactions", sa.Column("scan_from", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE safe_transactions SET signature_kinds = "
        "(SELECT coalesce(jsonb_object_agg(owner, 'eip712'), '{}') FROM unnest(confirmations) AS owner)"
    )
    op.execute(_LOOK_AFTER)


def downgrade() -> None:
    op.execute("UPDATE proposals SET due_at = NULL WHERE state = 'approved'")
    for column in ("scan_from", "contract_signatures", "signature_kinds"):
        op.drop_column("safe_transactions", column)
    op.drop_constraint(op.f("ck_proposals_ended_is_not_due"), "proposals")
    op.drop_constraint(op.f("ck_proposals_served_is_due"), "proposals")
    op.create_check_constraint(op.f("ck_proposals_served_is_due"), "proposals", f"({_SERVED}) = (due_at IS NOT NULL)")
    for column in ("delegate_checked_at", "queue_due_at", "news_at", "safe_seen", "alerts"):
        op.drop_column("proposals", column)
    op.drop_column("change_requests", "alerts_seen")
