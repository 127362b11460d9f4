"""Which request to the API asked for a change request, for the logs and traces of its steps.

Revision: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    for column in ("api_request_id", "traceparent"):
        op.add_column("change_requests", sa.Column(column, sa.Text(), nullable=True))


def downgrade() -> None:
    for column in ("traceparent", "api_request_id"):
        op.drop_column("change_requests", column)
