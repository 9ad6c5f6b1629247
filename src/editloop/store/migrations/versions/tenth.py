"""The tenth version: keys of clients, tool calls that a response goes on from, texts that are not kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "10"
down_revision = "9"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, which are null in earlier rows, and the index of the rows that have a key."""
    op.add_column("drafts", sa.Column("client_key", sa.String(128)))
    op.add_column("drafts", sa.Column("has_instructions", sa.Boolean()))
    op.add_column("drafts", sa.Column("message", sa.Text()))
    op.add_column("drafts", sa.Column("text_digest", sa.String(32)))
    some = sa.text("client_key IS NOT NULL")
    op.create_index("drafts_client_key", "drafts", ["client_key"], sqlite_where=some, postgresql_where=some)
