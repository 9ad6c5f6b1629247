"""The live loop: serve policies behind one endpoint, take edits in, learn which policy is best.

Needs the extra `serve`. It does not know how policies are trained. The names are loaded when they are first
used: an application with a client needs no server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from editloop.lazy import lazy_getattr

if TYPE_CHECKING:
    from editloop.serve.app import create_app
    from editloop.serve.backend import Backend, Chunk, Completion, Refused, Served, Unanswered
    from editloop.serve.client import AsyncClient, Client, Draft, Taken
    from editloop.serve.gate import Limits
    from editloop.serve.keys import create_key, list_keys, revoke_key
    from editloop.serve.live import Live
    from editloop.serve.store import Store

_MODULES = {
    "app": ("create_app",),
    "backend": ("Backend", "Chunk", "Completion", "Refused", "Served", "Unanswered"),
    "client": ("AsyncClient", "Client", "Draft", "Taken"),
    "gate": ("Limits",),
    "keys": ("create_key", "list_keys", "revoke_key"),
    "live": ("Live",),
    "store": ("Store",),
}
__getattr__, __dir__ = lazy_getattr(__name__, _MODULES)

__all__ = [
    "AsyncClient",
    "Backend",
    "Chunk",
    "Client",
    "Completion",
    "Draft",
    "Limits",
    "Live",
    "Refused",
    "Served",
    "Store",
    "Taken",
    "Unanswered",
    "create_app",
    "create_key",
    "list_keys",
    "revoke_key",
]
