"""The live loop: serve policies behind one endpoint, take edits in, learn which policy is best.

Needs the extra `serve`. It does not know how policies are trained. The names are loaded when they are first
used: an application with a client needs no server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from editloop.lazy import lazy_getattr

if TYPE_CHECKING:
    from editloop.serve.api.app import create_app
    from editloop.serve.api.middleware import Limits
    from editloop.serve.backends.base import Backend, Chunk, Completion, Refused, Served, Unanswered
    from editloop.serve.client import AsyncClient, Client, Draft, Taken
    from editloop.serve.loop.feedback import Live

_MODULES = {
    "api.app": ("create_app",),
    "backends.base": ("Backend", "Chunk", "Completion", "Refused", "Served", "Unanswered"),
    "client": ("AsyncClient", "Client", "Draft", "Taken"),
    "api.middleware": ("Limits",),
    "loop.feedback": ("Live",),
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
    "Taken",
    "Unanswered",
    "create_app",
]
