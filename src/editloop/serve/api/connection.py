"""Limits of a connection: how large the head of a request may be, and how long it may take to arrive.

uvicorn itself waits for a head without a time limit, and one of its two parsers has no limit of its length.
The bodies of requests are limited by the middleware, which knows by which key they are sent.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

__all__ = ["MAX_HEAD_BYTES", "limited_head"]

MAX_HEAD_BYTES = 65_536
"""Maximum number of bytes of a request's line and headers."""

HEAD_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
HEAD_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


class _LimitedHead(AutoHTTPProtocol):  # type: ignore[misc, valid-type, unused-ignore]
    """Closes a connection on which no request arrives for too long.

    It relies on two facts about uvicorn's protocols: `cycle` is the request that is being answered, with an
    attribute `response_complete`, and `on_response_complete` is called at its end. `tests/serve/test_edge.py`
    fails if that changes.

    Attributes:
        seconds: The time in which a head must arrive; set by `limited_head`.
    """

    seconds: float

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._head = 0  # bytes of the head that have arrived

    def connection_made(self, transport: Any) -> None:
        """Start waiting for a head."""
        super().connection_made(transport)
        self._update_deadline()

    def data_received(self, data: bytes) -> None:
        """Count what arrives towards the length of the head, until the head is complete."""
        super().data_received(data)
        self._head += len(data)
        self._update_deadline()  # which sets the count to 0 if these bytes completed the head
        if self._deadline is not None and self._head > MAX_HEAD_BYTES:
            self._close(HEAD_TOO_LONG)

    def on_response_complete(self) -> None:
        """Start waiting for the next head."""
        super().on_response_complete()
        self._update_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        self._end_wait()

    def _update_deadline(self) -> None:
        """Let the deadline run while a head is awaited, and stop it while a request is being answered.

        A deadline that runs is left alone: a client that sends one byte at a time must not extend it.
        """
        if self.cycle is not None and not self.cycle.response_complete:
            self._end_wait()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.seconds, lambda: self._close(HEAD_TIMEOUT))

    def _end_wait(self) -> None:
        self._head = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self, answer: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._head:  # an idle connection without a request is closed without an answer
            self.transport.write(answer)
        self.transport.close()


def limited_head(seconds: float) -> type[asyncio.Protocol]:
    """A protocol for uvicorn that gives each head this many seconds to arrive.

    A class and not an object, because uvicorn makes one protocol for each connection.
    """
    kind: type[asyncio.Protocol] = type("LimitedHead", (_LimitedHead,), {"seconds": seconds})
    return kind
