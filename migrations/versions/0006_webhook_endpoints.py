"""Webhook endpoints with a life of their own, deliveries in order, a feed of events.

Revision: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_TIMES = (
    "last_success_at",
    "failing_since",
    "disabled_at",
    "previous_secret_expires_at",
    "due_at",
    "rung_at",
    "lease_until",
)
_PENDING = sa.text("due_at IS NOT NULL")
_CHECKS = {
    "state": "state IN ('active', 'deleted', 'disabled', 'paused')",
    "managed_by": "managed_by IN ('api', 'file')",
    "reason": "disabled_reason IS NULL OR disabled_reason IN ('keeps_failing', 'receiver_gone')",
    "disabled_has_reason": "(state = 'disabled') = (disabled_reason IS NOT NULL) AND (disabled_reason IS NULL) = (disabled_at IS NULL)",
    "held_is_not_due": "state NOT IN ('paused', 'disabled') OR due_at IS NULL",
    "active_is_due": "state <> 'active' OR due_at IS NOT NULL",
    "previous_secret_expires": "(previous_secret_sealed IS NULL) = (previous_secret_expires_at IS NULL)",
}


def upgrade() -> None:
    _events_up()
    _endpoints_up()
    _deliveries_up()
    op.add_column("webhook_attempts", sa.Column("fault", sa.Text(), nullable=True))
    op.create_check_constraint(
        op.f("ck_webhook_attempts_fault"),
        "webhook_attempts",
        "fault IS NULL OR fault IN ('address_refused', 'bad_status', 'internal_error', 'no_answer', 'no_connection', 'secret_unreadable')",
    )
    op.drop_index("ix_webhook_attempts_delivery_id", "webhook_attempts")
    op.create_index("ix_webhook_attempts_delivery_id", "webhook_attempts", ["delivery_id", "id"])


def _events_up() -> None:
    for column in ("change_request_id", "seq", "state"):
        op.alter_column("events", column, nullable=True)
    op.add_column(
        "events",
        sa.Column(
            "transaction_id",
            sa.BigInteger(),
            server_default=sa.text("(pg_current_xact_id()::text::bigint)"),
            nullable=False,
        ),
    )
    op.create_check_constraint(
        op.f("ck_events_of_a_request"),
        "events",
        "(change_request_id IS NULL) = (seq IS NULL) AND (seq IS NULL) = (state IS NULL)",
    )
    op.drop_index("ix_events_workspace_id", "events")
    op.create_index("ix_events_workspace_id", "events", ["workspace_id", "transaction_id", "position"])


def _endpoints_up() -> None:
    table = "webhook_endpoints"
    # What there is came from workspace files; what was switched off is not named by them any more.
    op.add_column(table, sa.Column("managed_by", sa.Text(), server_default="file", nullable=False))
    op.alter_column(table, "managed_by", server_default=None)
    op.add_column(table, sa.Column("state", sa.Text(), server_default=sa.text("'active'"), nullable=False))
    op.add_column(table, sa.Column("description", sa.Text(), nullable=True))
    op.add_column(table, sa.Column("event_types", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False))
    op.add_column(table, sa.Column("previous_secret_sealed", sa.LargeBinary(), nullable=True))
    for name in ("disabled_reason", "disabled_detail"):
        op.add_column(table, sa.Column(name, sa.Text(), nullable=True))
    for name in _TIMES:
        op.add_column(table, sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    for name in ("fence", "attempts"):
        op.add_column(table, sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column(
        table, sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False)
    )
    op.execute(
        "UPDATE webhook_endpoints SET due_at = now(), state = CASE WHEN enabled THEN 'active' ELSE 'deleted' END"
    )
    op.drop_column(table, "enabled")
    for name, condition in _CHECKS.items():
        op.create_check_constraint(op.f(f"ck_webhook_endpoints_{name}"), table, condition)
    op.drop_constraint(op.f("uq_webhook_endpoints_workspace_id_url"), table)
    op.create_index("ix_webhook_endpoints_workspace_id", table, ["workspace_id", "id"])
    op.create_index(
        "uq_webhook_endpoints_live_url",
        table,
        ["workspace_id", "url"],
        unique=True,
        postgresql_where=sa.text("state <> 'deleted'"),
    )


def _deliveries_up() -> None:
    table = "webhook_deliveries"
    op.drop_index("ix_webhook_deliveries_due_at", table)
    op.drop_index("ix_webhook_deliveries_endpoint_id", table)
    for name in ("rung_at", "lease_until", "fence"):
        op.drop_column(table, name)
    op.add_column(table, sa.Column("event_position", sa.BigInteger(), nullable=True))
    op.add_column(table, sa.Column("change_request_id", sa.Text(), nullable=True))
    op.add_column(table, sa.Column("step", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.execute(
        "UPDATE webhook_deliveries SET step = attempts, event_position = events.position,"
        " change_request_id = events.change_request_id FROM events WHERE events.id = event_id"
    )
    op.alter_column(table, "event_position", nullable=False)
    op.drop_constraint(op.f("ck_webhook_deliveries_state"), table)
    op.create_check_constraint(
        op.f("ck_webhook_deliveries_state"), table, "state IN ('delivered', 'dropped', 'failed', 'pending')"
    )
    op.create_index("ix_webhook_deliveries_endpoint_id", table, ["endpoint_id", "id"])
    op.create_index("ix_webhook_deliveries_due_at", table, ["endpoint_id", "due_at"], postgresql_where=_PENDING)
    op.create_index("ix_webhook_deliveries_order", table, ["endpoint_id", "event_position"], postgresql_where=_PENDING)
    op.create_index(
        "ix_webhook_deliveries_change_request_id",
        table,
        ["endpoint_id", "change_request_id", "event_position"],
        postgresql_where=_PENDING,
    )


def downgrade() -> None:
    # Events of endpoints have no place there; they and their deliveries are lost.
    op.execute(
        "DELETE FROM webhook_attempts WHERE delivery_id IN (SELECT d.id FROM webhook_deliveries d"
        " JOIN events e ON e.id = d.event_id WHERE e.change_request_id IS NULL)"
    )
    op.execute(
        "DELETE FROM webhook_deliveries WHERE event_id IN (SELECT id FROM events WHERE change_request_id IS NULL)"
    )
    op.execute("DELETE FROM events WHERE change_request_id IS NULL")
    op.drop_index("ix_webhook_attempts_delivery_id", "webhook_attempts")
    op.create_index("ix_webhook_attempts_delivery_id", "webhook_attempts", ["delivery_id"])
    op.drop_column("webhook_attempts", "fault")
    _deliveries_down()
    _endpoints_down()
    op.drop_index("ix_events_workspace_id", "events")
    op.create_index("ix_events_workspace_id", "events", ["workspace_id", "position"])
    op.drop_constraint(op.f("ck_events_of_a_request"), "events")
    op.drop_column("events", "transaction_id")
    for column in ("change_request_id", "seq", "state"):
        op.alter_column("events", column, nullable=False)


def _deliveries_down() -> None:
    table = "webhook_deliveries"
    for name in ("change_request_id", "order", "due_at", "endpoint_id"):
        op.drop_index(f"ix_webhook_deliveries_{name}", table)
    for name in ("event_position", "change_request_id", "step"):
        op.drop_column(table, name)
    for name in ("rung_at", "lease_until"):
        op.add_column(table, sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.add_column(table, sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.drop_constraint(op.f("ck_webhook_deliveries_state"), table)
    op.execute("UPDATE webhook_deliveries SET state = 'failed' WHERE state = 'dropped'")
    op.create_check_constraint(
        op.f("ck_webhook_deliveries_state"), table, "state IN ('pending', 'delivered', 'failed')"
    )
    op.create_index("ix_webhook_deliveries_endpoint_id", table, ["endpoint_id"])
    op.create_index("ix_webhook_deliveries_due_at", table, ["due_at"], postgresql_where=_PENDING)


def _endpoints_down() -> None:
    table = "webhook_endpoints"
    op.drop_index("uq_webhook_endpoints_live_url", table)
    op.drop_index("ix_webhook_endpoints_workspace_id", table)
    # A URL was one endpoint's for good: the others of it get another one, so that their history stays.
    op.execute(
        "UPDATE webhook_endpoints o SET url = url || '#' || id WHERE state = 'deleted' AND EXISTS"
        " (SELECT FROM webhook_endpoints n WHERE n.workspace_id = o.workspace_id AND n.url = o.url AND n.id > o.id)"
    )
    op.create_unique_constraint(op.f("uq_webhook_endpoints_workspace_id_url"), table, ["workspace_id", "url"])
    for name in _CHECKS:
        op.drop_constraint(op.f(f"ck_webhook_endpoints_{name}"), table)
    op.add_column(table, sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False))
    op.execute("UPDATE webhook_endpoints SET enabled = state = 'active'")
    for name in (
        *_TIMES, "managed_by", "state", "description", "event_types", "previous_secret_sealed", "disabled_reason",
        "disabled_detail", "fence", "attempts", "updated_at",
    ):  # fmt: skip
        op.drop_column(table, name)
