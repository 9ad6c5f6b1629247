"""The first version: all tables, and the view in which a row's status is defined."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None
branch_labels = None
depends_on = None

LOG = """
CREATE VIEW log AS
SELECT d.response_id AS id, d.context AS context, d.response AS response,
       CASE WHEN e.revision IS NULL THEN NULL ELSE COALESCE(e.edit, d.response) END AS edit,
       CASE WHEN e.revision IS NOT NULL AND COALESCE(e.edit, d.response) = d.response THEN 'accepted'
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
    """Make all tables, and the view that is read as a log.

    It is long because it lists all their columns. It does not use `schema.py`, which has the tables of the
    newest version.
    """
    text, number = sa.Text(), sa.Float(53)
    op.create_table(
        "events",
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("time", number, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("response_id", sa.String(128)),
        sa.Column("revision", sa.Integer()),
        sa.Column("scope", sa.String(64)),
        sa.Column("arm", sa.String(200)),
        sa.Column("propensity", number),
        sa.Column("epoch", sa.Integer()),
        sa.Column("cost", number),
        sa.Column("arms", text),
    )
    op.create_index("events_once", "events", ["response_id", "revision"], unique=True)
    op.create_index("events_time", "events", ["time"])
    op.create_table(
        "drafts",
        sa.Column("response_id", sa.String(128), primary_key=True),
        sa.Column("time", number, nullable=False),
        sa.Column("user", sa.String(256)),
        sa.Column("policy", sa.String(200)),
        sa.Column("propensity", number),
        sa.Column("request", sa.String(32)),
        sa.Column("context", text),
        sa.Column("response", text),
        sa.Column("metadata", text),
        sa.Column("finish", sa.String(16)),
    )
    op.create_index("drafts_time", "drafts", ["time"])
    op.create_index("drafts_user", "drafts", ["user", "time"])
    op.create_table(
        "edits",
        sa.Column("response_id", sa.String(128), primary_key=True),
        sa.Column("revision", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("time", number, nullable=False),
        sa.Column("edit", text),
        sa.Column("key", sa.String(128)),
    )
    op.create_index("edits_key", "edits", ["key"], unique=True)
    op.create_index("edits_time", "edits", ["time"])
    op.create_table(
        "policies",
        sa.Column("arm", sa.String(200), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("run", text, nullable=False),
        sa.Column("time", number, nullable=False),
        sa.Column("metrics", text, nullable=False),
        sa.Column("read_until", number),
    )
    op.create_table(
        "keys",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created", number, nullable=False),
        sa.Column("revoked", number),
    )
    op.create_table(
        "facts",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", text, nullable=False),
    )
    op.execute(LOG)
