"""The third version: drafts that were thrown away or are no answers; what was known of a request."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"
branch_labels = None
depends_on = None

LOG = """
CREATE VIEW log AS
SELECT d.response_id AS id, d.context AS context, d.response AS response,
       CASE WHEN e.revision IS NULL OR e.discarded THEN NULL ELSE COALESCE(e.edit, d.response) END AS edit,
       CASE WHEN e.discarded THEN 'discarded'
            WHEN e.revision IS NOT NULL AND COALESCE(e.edit, d.response) = d.response THEN 'accepted'
            WHEN e.revision IS NOT NULL THEN 'edited'
            WHEN x.seq IS NOT NULL THEN 'expired'
            ELSE 'pending' END AS status,
       d."user" AS "user", d.policy AS policy, d.propensity AS propensity, d.time AS time,
       d.metadata AS metadata
FROM drafts d
LEFT JOIN edits e ON e.response_id = d.response_id
    AND e.revision = (SELECT MAX(revision) FROM edits WHERE response_id = d.response_id)
LEFT JOIN events x ON x.response_id = d.response_id AND x.revision = 0
WHERE d.response IS NOT NULL
"""


def upgrade() -> None:
    """Add the columns, and make the view anew. They are null in earlier rows, of which nothing is known."""
    op.add_column("events", sa.Column("features", sa.Text()))
    op.add_column("drafts", sa.Column("non_answer", sa.String(32)))
    op.execute("DROP VIEW log")
    op.add_column("edits", sa.Column("discarded", sa.Boolean()))
    op.execute(LOG)
