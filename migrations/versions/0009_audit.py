"""The audit log: who did it, from where, and hashes that chain events; only retention deletes them.

Revision: 0009
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"

_OF_A_REQUEST = "ck_events_of_a_request"
_ONLY_APPEND = """
CREATE FUNCTION countersign_only_append() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('countersign.retention', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'events are the audit log: % is refused', TG_OP
        USING ERRCODE = 'insufficient_privilege', HINT = 'docs/operations.md, chapter Audit';
END $$;
CREATE TRIGGER only_append BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION countersign_only_append();
CREATE TRIGGER never_truncate BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION countersign_only_append();
"""


def upgrade() -> None:
    # What is there stays as it was: it is covered by the first hash that comes after it, see docs/operations.md.
    for name, kind in (("actor", JSONB()), ("origin", JSONB()), ("previous_hash", sa.Text()), ("hash", sa.Text())):
        op.add_column("events", sa.Column(name, kind, nullable=True))
    op.add_column("inbound_events", sa.Column("origin", JSONB(), nullable=True))
    op.add_column(
        "change_requests", sa.Column("last_chained_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column("change_requests", sa.Column("last_event_hash", sa.Text(), nullable=True))
    op.add_column("change_requests", sa.Column("events_deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "act_chains",
        sa.Column(
            "workspace_id",
            sa.Text(),
            sa.ForeignKey("workspaces.id", name=op.f("fk_act_chains_workspace_id")),
            nullable=False,
        ),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", name=op.f("pk_act_chains")),
    )
    op.drop_constraint(op.f(_OF_A_REQUEST), "events")
    op.create_check_constraint(
        op.f(_OF_A_REQUEST),
        "events",
        "(change_request_id IS NULL) = (state IS NULL) AND (change_request_id IS NULL OR seq IS NOT NULL)",
    )
    op.create_check_constraint(
        op.f("ck_events_hashes"),
        "events",
        "(hash IS NULL) = (previous_hash IS NULL) AND (hash IS NULL OR (seq IS NOT NULL AND actor IS NOT NULL))",
    )
    op.create_index(
        "uq_events_act",
        "events",
        ["workspace_id", "seq"],
        unique=True,
        postgresql_where=sa.text("change_request_id IS NULL"),
    )
    op.execute(_ONLY_APPEND)


def downgrade() -> None:
    op.execute("DROP TRIGGER never_truncate ON events")
    op.execute("DROP TRIGGER only_append ON events")
    op.execute("DROP FUNCTION countersign_only_append()")
    # Acts on a workspace have no place there; those that were sent to endpoints stay, without their number.
    op.execute(
        "DELETE FROM events WHERE change_request_id IS NULL"
        " AND type NOT IN ('webhook_endpoint.disabled', 'webhook_endpoint.test')"
    )
    op.execute("UPDATE events SET seq = NULL WHERE change_request_id IS NULL")
    op.drop_index("uq_events_act", "events")
    op.drop_constraint(op.f("ck_events_hashes"), "events")
    op.drop_constraint(op.f(_OF_A_REQUEST), "events")
    op.create_check_constraint(
        op.f(_OF_A_REQUEST),
        "events",
        "(change_request_id IS NULL) = (seq IS NULL) AND (seq IS NULL) = (state IS NULL)",
    )
    op.drop_table("act_chains")
    for name in ("events_deleted_at", "last_event_hash", "last_chained_seq"):
        op.drop_column("change_requests", name)
    op.drop_column("inbound_events", "origin")
    for name in ("hash", "previous_hash", "origin", "actor"):
        op.drop_column("events", name)
