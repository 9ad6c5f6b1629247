"""The seventh version: on PostgreSQL the database itself numbers events, so that many can write at once.

A replica of an earlier version, which numbers events itself, cannot write any more (`GENERATED ALWAYS`).
"""

from __future__ import annotations

from alembic import op

revision = "7"
down_revision = "6"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let a sequence give the numbers, which begins after the last one. SQLite has one writer, who counts."""
    if op.get_bind().dialect.name == "sqlite":
        return
    op.execute("ALTER TABLE events ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY")
    op.execute(
        "SELECT setval(pg_get_serial_sequence('events', 'seq'), COALESCE(MAX(seq), 0) + 1, false) FROM events"
    )
