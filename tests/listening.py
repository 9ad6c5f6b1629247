"""A server that listens on a port of this machine while a test runs, for clients with sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from editloop.serve.api.server import listen


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The address of a server that is ready."""
    with listen("127.0.0.1", 0) as sock:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=asyncio.run, args=(server.serve([sock]),))
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
