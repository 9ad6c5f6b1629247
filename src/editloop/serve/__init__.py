"""The live loop: serve policies behind one endpoint, take edits in, and learn which policy is best.

`api/` speaks HTTP, `loop/` decides, records and learns, `backends/` is where policies run, and `dashboard/`
shows it all. How policies are trained is not known here. Needs the extra `serve`. The names are loaded when
they are first used, because an application with a client needs no server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from editloop.lazy import lazy_getattr

if TYPE_CHECKING:
    from editloop.serve.api.app import create_app
    from editloop.serve.api.limits import Limits
    from editloop.serve.backends.base import (
        Backend,
        BackendUnavailableError,
        Chunk,
        Completion,
        ServedPolicy,
        UpstreamRejectedError,
    )
    from editloop.serve.client import AsyncClient, Client, Draft, EditReceipt
    from editloop.serve.in_context.base import InContextOptions
    from editloop.serve.loop.feedback import FeedbackLoop

_MODULES = {
    "api.app": ("create_app",),
    "api.limits": ("Limits",),
    "backends.base": (
        "Backend",
        "BackendUnavailableError",
        "Chunk",
        "Completion",
        "ServedPolicy",
        "UpstreamRejectedError",
    ),
    "client": ("AsyncClient", "Client", "Draft", "EditReceipt"),
    "in_context.base": ("InContextOptions",),
    "loop.feedback": ("FeedbackLoop",),
}
__getattr__, __dir__ = lazy_getattr(__name__, _MODULES)

__all__ = [
    "AsyncClient",
    "Backend",
    "BackendUnavailableError",
    "Chunk",
    "Client",
    "Completion",
    "Draft",
    "EditReceipt",
    "FeedbackLoop",
    "InContextOptions",
    "Limits",
    "ServedPolicy",
    "UpstreamRejectedError",
    "create_app",
]
