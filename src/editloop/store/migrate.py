"""Bringing a database to the schema of this version, by the migrations in `migrations/` (Alembic)."""

from __future__ import annotations

from sqlalchemy import Connection

from editloop.errors import StoreError

__all__ = ["REVISION", "migrate"]

REVISION = "11"
"""The newest revision of the schema, the last in `editloop.store.migrations.versions`."""


def migrate(connection: Connection, name: str) -> str | None:
    """Run the migrations that a database lacks, and return the revision that it had before.

    Args:
        connection: In a transaction that excludes other writers.
        name: The store, for the error message.

    Raises:
        StoreError: The database has a revision that this version does not know.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", "editloop.store:migrations")
    config.attributes["connection"] = connection
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision == REVISION:  # as for almost every start, which then reads no migration
        return revision
    try:
        if revision is not None:  # raises an error for a revision that this version does not have
            ScriptDirectory.from_config(config).get_revision(revision)
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(
            f"the store {name} is of a newer version", seen=revision, do="update editloop"
        ) from error
    return revision
