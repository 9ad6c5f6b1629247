"""What the routes share: one object, which is made when the server starts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from editloop.serve.api.authentication import KeyCache
from editloop.serve.api.edit_tokens import EditTokens
from editloop.serve.api.limits import Limits
from editloop.serve.api.metrics import Metrics
from editloop.serve.api.worker_metrics import WorkerMetrics
from editloop.serve.in_context.backend import InContextBackend
from editloop.serve.loop.completions import CompletionService
from editloop.serve.loop.feedback import FeedbackLoop
from editloop.serve.telemetry.spans import Spans
from editloop.store.audit import Action, AuditEntry
from editloop.store.keys import Key

__all__ = ["ServerState", "audit_entry", "get_key", "get_state"]


@dataclass(frozen=True)
class ServerState:
    """The parts of a server.

    Attributes:
        loop: Decides, records and learns.
        completions: Answers requests for responses.
        backend: Generates responses.
        limits: The limits on requests.
        metrics: The metrics of this process.
        keys: The keys of those who may send requests.
        tokens: The edit tokens.
        spans: Emits spans of completions; None if nobody wants them.
        ready: The arms that the backend has been asked to prepare.
        following: Held while arms are prepared or retired, so that two changes of the arms do not overlap. It
            is the event loop's only lock. Its holder may wait for the store or the backend, neither of which
            ever waits for it.
        in_context: The in-context policies of the configuration, which are arms whatever is promoted.
        workers: The metrics of all workers, if this process is one of several.
    """

    loop: FeedbackLoop
    completions: CompletionService
    backend: InContextBackend
    limits: Limits
    metrics: Metrics
    keys: KeyCache
    tokens: EditTokens
    spans: Spans | None = None
    ready: set[str] = field(default_factory=set)
    following: asyncio.Lock = field(default_factory=asyncio.Lock)
    in_context: Sequence[str] = ()
    workers: WorkerMetrics | None = None


def get_state(request: Request) -> ServerState:
    """The parts of the server that a request came to."""
    state: ServerState = request.app.state.server
    return state


def get_key(request: Request) -> Key | None:
    """The key that a request came with; None for a server without keys."""
    key: Key | None = request.state.key
    return key


def audit_entry(request: Request, action: Action, subject: str, **detail: Any) -> AuditEntry:
    """What is written about the act of an admin; see `AuditEntry`."""
    key = get_key(request)
    return AuditEntry.now("" if key is None else key.name, action, subject, **detail)
