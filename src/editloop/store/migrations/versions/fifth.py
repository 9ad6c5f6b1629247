"""The fifth version: the stages of policies, drafts that nobody sees, and how a draft was written."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from editloop.store.migrations.versions.third import LOG as EARLIER_LOG

revision = "5"
down_revision = "4"
branch_labels = None
depends_on = None

# Of a draft that was cut at its limit it is that of a text that goes on, and not that of the row's response.
LOG = EARLIER_LOG.replace(
    "d.propensity AS propensity,",
    "d.propensity AS propensity, CASE WHEN d.finish = 'length' THEN NULL ELSE d.logprob END AS logprob,",
)


def upgrade() -> None:
    """Add the columns, which are null in earlier rows, and the table of shadow drafts; make the view anew."""
    op.add_column("events", sa.Column("detail", sa.Text()))
    some = sa.text("detail IS NOT NULL")
    op.create_index("events_detail", "events", ["seq"], sqlite_where=some, postgresql_where=some)
    op.add_column("drafts", sa.Column("seconds", sa.Float(53)))
    op.add_column("drafts", sa.Column("logprob", sa.Float(53)))
    op.create_table(
        "shadows",
        sa.Column("response_id", sa.String(128), primary_key=True),
        sa.Column("arm", sa.String(200), primary_key=True),
        sa.Column("time", sa.Float(53), nullable=False),
        sa.Column("response", sa.Text()),
        sa.Column("finish", sa.String(16)),
    )
    op.execute("DROP VIEW log")
    op.execute(LOG)
