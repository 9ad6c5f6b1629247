"""What the routes share: one object, which is made when the server starts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from fastapi import Request

from editloop.serve.api.limits import Limits
from editloop.serve.api.metrics import Metrics
from editloop.serve.in_context.backend import InContextBackend
from editloop.serve.loop.completions import CompletionService
from editloop.serve.loop.feedback import FeedbackLoop
from editloop.serve.telemetry.spans import Spans

__all__ = ["ServerState", "get_state"]


@dataclass(frozen=True)
class ServerState:
    """The parts of a server.

    Attributes:
        loop: Decides, records and learns.
        completions: Answers requests for responses.
        backend: Generates responses.
        limits: The limits on requests.
        metrics: The metrics of this process.
        ready: The arms that the backend has been asked to prepare.
        following: Held while arms are prepared or retired, so that two changes of the arms do not overlap. It
            is the event loop's only lock. Its holder may wait for the store or the backend, neither of which
            ever waits for it.
        spans: Emits spans of completions; None if nobody wants them.
        in_context: The in-context policies of the configuration, which are arms whatever is promoted.
    """

    loop: FeedbackLoop
    completions: CompletionService
    backend: InContextBackend
    limits: Limits
    metrics: Metrics
    spans: Spans | None = None
    ready: set[str] = field(default_factory=set)
    following: asyncio.Lock = field(default_factory=asyncio.Lock)
    in_context: Sequence[str] = ()


def get_state(request: Request) -> ServerState:
    """The parts of the server that a request came to."""
    state: ServerState = request.app.state.server
    return state
