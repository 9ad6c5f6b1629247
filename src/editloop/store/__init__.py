"""The event store: schema, migrations and queries, on SQLite or PostgreSQL.

It keeps rows and knows neither bandits nor HTTP, so every room above can read the same tables through the
same functions: `reads` and `log_filter` for rows, `sums` for figures over time, `writes` for what a
transaction changes; `log` reads a store as a log. Needs the extra `serve`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from editloop.lazy import lazy_getattr

if TYPE_CHECKING:
    from editloop.store.database import Store
    from editloop.store.keys import create_key, list_keys, revoke_key
    from editloop.store.log import DatabaseLog

_MODULES = {
    "database": ("Store",),
    "log": ("DatabaseLog",),
    "keys": ("create_key", "list_keys", "revoke_key"),
}
__getattr__, __dir__ = lazy_getattr(__name__, _MODULES)

__all__ = ["DatabaseLog", "Store", "create_key", "list_keys", "revoke_key"]
