"""The eleventh version: other names of responses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "11"
down_revision = "10"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "aliases",
        sa.Column("alias", sa.String(128), primary_key=True),
        sa.Column("response_id", sa.String(128), nullable=False),
    )
