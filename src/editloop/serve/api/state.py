"""What the routes share: one object, made when the server starts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from fastapi import Request

from editloop.serve.api.metrics import Metrics
from editloop.serve.api.middleware import Limits
from editloop.serve.backends.base import Backend
from editloop.serve.loop.completions import Desk
from editloop.serve.loop.feedback import Live

__all__ = ["Room", "room_of"]


@dataclass(frozen=True)
class Room:
    """The parts of a server.

    Attributes:
        live: Decides and learns.
        desk: Answers questions.
        backend: Writes responses.
        limits: Of requests.
        metrics: What is counted.
        ready: Arms that the backend was given.
        following: Held while it is given others.
    """

    live: Live
    desk: Desk
    backend: Backend
    limits: Limits
    metrics: Metrics
    ready: set[str] = field(default_factory=set)
    following: asyncio.Lock = field(default_factory=asyncio.Lock)


def room_of(request: Request) -> Room:
    """The parts of the server that a request came to."""
    room: Room = request.app.state.room
    return room
