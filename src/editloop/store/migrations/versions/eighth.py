"""The eighth version: tokens of drafts, reasons of edits, when a key was used, and what admins did."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from editloop.store.migrations.versions.fifth import LOG as EARLIER_LOG

revision = "8"
down_revision = "7"
branch_labels = None
depends_on = None

# A later revision without a reason leaves the reason of an earlier one in force.
LOG = EARLIER_LOG.replace(
    "d.metadata AS metadata",
    "d.metadata AS metadata, (SELECT r.reason FROM edits r WHERE r.response_id = d.response_id "
    "AND r.reason IS NOT NULL ORDER BY r.revision DESC LIMIT 1) AS reason",
)


def upgrade() -> None:
    """Add the columns, which are null in earlier rows, and the table; make the view and an index anew."""
    op.execute("DROP VIEW log")
    op.add_column("drafts", sa.Column("prompt_tokens", sa.Integer()))
    op.add_column("drafts", sa.Column("completion_tokens", sa.Integer()))
    op.add_column("edits", sa.Column("reason", sa.Text()))
    op.add_column("keys", sa.Column("last_used", sa.Float(53)))
    op.create_table(
        "audit",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("time", sa.Float(53), nullable=False),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(256), nullable=False),
        sa.Column("detail", sa.Text()),
    )
    op.create_index("audit_time", "audit", ["time"])
    # With the responses in it, rounds are counted by user without a look at the drafts, which hold the texts.
    op.drop_index("drafts_user", "drafts")
    op.create_index("drafts_user", "drafts", ["user", "time", "response_id"])
    op.execute(LOG)
