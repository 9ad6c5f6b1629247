"""The sixth version: what each edit says of its user's preferences."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "6"
down_revision = "5"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "preferences",
        sa.Column("response_id", sa.String(128), primary_key=True),
        sa.Column("arm", sa.String(200), primary_key=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("time", sa.Float(53), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
    )
