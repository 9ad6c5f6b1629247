"""What Alembic executes: the missing migrations, on the connection that `editloop.store.migrate` gives.

That connection is in a transaction already. Alembic's own is part of it then, so that all migrations, and
what the caller writes beside them, are committed together or not at all.
"""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
