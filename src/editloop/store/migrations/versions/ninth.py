"""The ninth version: how long a user worked on an edit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from editloop.store.migrations.versions.eighth import LOG as EARLIER_LOG

revision = "9"
down_revision = "8"
branch_labels = None
depends_on = None

# Each revision has the time since the one before it, so an edit took the sum.
LOG = EARLIER_LOG.replace(
    "AS reason",
    "AS reason, (SELECT SUM(seconds) FROM edits WHERE response_id = d.response_id) AS edit_seconds",
)


def upgrade() -> None:
    """Add the column, which is null in earlier rows, and make the view anew."""
    op.execute("DROP VIEW log")
    op.add_column("edits", sa.Column("seconds", sa.Float(53)))
    op.execute(LOG)
