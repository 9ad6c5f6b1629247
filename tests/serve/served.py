"""A server on a real socket, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from serving import Parrot

from editloop.serve import Live, Store, create_app
from editloop.serve.entries import Epoch


@contextmanager
def served(folder: Path, port: int = 0) -> Iterator[tuple[str, Parrot]]:
    """A server on a socket, in a thread of its own."""
    backend = Parrot()
    live = Live(Store(str(folder / "edits.db")), folder / "state")
    app = create_app(live, backend)
    listening = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            await live.set_arms(Epoch(lambda _: ("a@1", "b@2"), (), time.time()))
            await server.serve([listening])

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", backend
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
