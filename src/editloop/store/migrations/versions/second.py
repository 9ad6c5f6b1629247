"""The second version: an epoch names the cost that its edits are measured by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the name of the cost. It is null in earlier epochs, whose cost is not known."""
    op.add_column("events", sa.Column("cost_name", sa.String(200)))
