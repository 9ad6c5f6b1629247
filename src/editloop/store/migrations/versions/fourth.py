"""The fourth version: the drafts among which a response was chosen."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. It is null in earlier rows, where each response was the only draft."""
    op.add_column("drafts", sa.Column("compared", sa.Text()))
