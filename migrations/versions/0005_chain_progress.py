"""How far a chain was read, how far it is behind, and when it was looked at.

Revision: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("chain_cursors", sa.Column("read_to", sa.BigInteger(), nullable=True))
    op.add_column("chain_cursors", sa.Column("gap", sa.BigInteger(), nullable=True))
    op.add_column("chain_cursors", sa.Column("looked_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for column in ("looked_at", "gap", "read_to"):
        op.drop_column("chain_cursors", column)
