"""A connection's own limits: how long, and how large, the head of a request may be.

The server behind (uvicorn) waits for a head as long as it takes, and one of its two parsers takes a head of
any length. Bodies are the gate's business: it knows whose they are.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

__all__ = ["LONGEST_HEAD", "patient"]

LONGEST_HEAD = 65_536
"""Bytes of a request's line and headers."""

TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class _Patient(AutoHTTPProtocol):  # type: ignore[misc, valid-type, unused-ignore]
    """Closes a connection that has asked for nothing for too long."""

    seconds: float

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._head = 0

    def connection_made(self, transport: Any) -> None:
        """It is there."""
        super().connection_made(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        """Something has come; what does not end a head counts towards its length."""
        super().data_received(data)
        self._head += len(data)
        self._look()
        if self._deadline is not None and self._head > LONGEST_HEAD:
            self._close(TOO_LONG)

    def on_response_complete(self) -> None:
        """A request is answered."""
        super().on_response_complete()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        super().connection_lost(exc)
        self._end_wait()

    def _look(self) -> None:
        """Wait for a head, and no longer than the limit, unless a request is being answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._end_wait()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.seconds, lambda: self._close(TOO_LATE))

    def _end_wait(self) -> None:
        self._head = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self, answer: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._head:
            self.transport.write(answer)
        self.transport.close()


def patient(seconds: float) -> type[asyncio.Protocol]:
    """A protocol for uvicorn that gives each head so many seconds."""
    kind: type[asyncio.Protocol] = type("Patient", (_Patient,), {"seconds": seconds})
    return kind
