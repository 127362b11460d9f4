"""What failed at a proposal's last step, as a public code.

Revision: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("proposals", sa.Column("fault", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("proposals", "fault")
