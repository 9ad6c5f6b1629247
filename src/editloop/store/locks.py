"""The locks by which the replicas of a store on PostgreSQL write beside each other.

Every transaction that writes holds the writers' lock until its end. One that knows by name all that it
depends on (a response, a client's key) shares it, and locks these names for itself. So two replicas that
handle the same response do so one after the other, as if there were one writer, and all others do not wait. A
transaction that depends on more, such as a change of the arms, holds the writers' lock alone.

The database numbers events when they are inserted. A transaction has the writers' lock before it has a
number, and loses it after its commit can be seen. So a number that is missing below one that was seen belongs
to a transaction that holds the lock (`under_way`), or to one that has ended: then its event can be read, or
it will never come. The alternative is to wait until all older transactions of the database server have ended,
by `pg_snapshot_xmin`. It waits for those of other databases, too, and `pg_snapshot_xmax` is no bound for it:
it follows the last transaction that has ended, and one that has begun before that may have a higher number.
"""

from __future__ import annotations

from collections.abc import Collection
from zlib import crc32

from sqlalchemy import Connection, text

__all__ = ["lock_writers", "under_way"]

KEY = 26011905
"""The number of the writers' lock. It is arbitrary."""

_ALONE = text(f"SELECT pg_advisory_xact_lock({KEY})")

# The rows are locked in their order. The first one stands for the writers' lock, and the numbers are sorted,
# so all transactions take their locks in the same order, and none can wait for one that waits for it.
_SHARED = text(
    f"SELECT CASE n WHEN 1 THEN pg_advisory_xact_lock_shared({KEY}) ELSE pg_advisory_xact_lock({KEY}, name) "
    "END FROM unnest(CAST(:names AS integer[])) WITH ORDINALITY AS t(name, n)"
)

# PostgreSQL shows a lock on one number of 64 bits with objsubid 1, and one on two numbers of 32 with 2.
_HOLDERS = text(
    f"SELECT virtualtransaction FROM pg_locks WHERE locktype = 'advisory' AND classid = {KEY >> 32} "
    f"AND objid = {KEY & 0xFFFFFFFF} AND objsubid = 1 AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def lock_writers(connection: Connection, names: Collection[str] | None) -> None:
    """Take the locks of a transaction, which has to be its first statement.

    What it reads in later statements is as the last holders of its locks have left it.

    Args:
        connection: To PostgreSQL.
        names: What the transaction depends on; None excludes all other writers.
    """
    if names is None:
        connection.execute(_ALONE)
    else:
        # Two names with the same number only wait for each other. PostgreSQL's integers are signed.
        numbers = sorted({crc32(name.encode("utf-8", "surrogatepass")) - 2**31 for name in names})
        connection.execute(_SHARED, {"names": [0, *numbers]})


def under_way(connection: Connection) -> frozenset[str]:
    """Return which transactions hold the writers' lock, by PostgreSQL's names for them."""
    return frozenset(connection.scalars(_HOLDERS))
