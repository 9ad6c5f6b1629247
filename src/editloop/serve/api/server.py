"""Run the server in this process, until a signal ends it."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from editloop.errors import ServeError
from editloop.serve.api.connection import limited_head
from editloop.serve.api.limits import Limits

__all__ = ["listen", "run_server", "server_settings"]

SHUTDOWN_SECONDS = 20
"""Seconds that requests under way are given to end."""


def listen(host: str, port: int) -> socket.socket:
    """Open a socket to listen at; port 0 takes a free one.

    Raises:
        ServeError: The port is in use, or the host is not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns off Nagle's algorithm only on sockets whose protocol is TCP.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise ServeError(
            f"cannot listen, {error.strerror}", seen=f"{host}:{port}", do="choose another --port"
        ) from error
    return listening


def server_settings(app: FastAPI, limits: Limits | None = None) -> uvicorn.Config:
    """The configuration with which uvicorn serves an application, with a time limit for slow heads."""
    return uvicorn.Config(
        app,
        http=limited_head((limits or Limits()).head_seconds),
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def run_server(
    app: FastAPI,
    listening: socket.socket,
    started: Callable[[], None],
    *,
    limits: Limits | None = None,
    beside: Callable[[], Coroutine[Any, Any, object]] | None = None,
) -> None:
    """Serve until a signal ends it, and close the store.

    Args:
        app: From `create_app`.
        listening: From `listen`.
        started: Called when the server is about to answer requests.
        limits: The limits on requests, as in `create_app`.
        beside: Makes a coroutine that runs in the same event loop while requests are served.

    Raises:
        EditLoopError: The store, the backend or a run cannot be used.
    """
    settings = server_settings(app, limits)

    async def run() -> None:
        async with app.router.lifespan_context(app):  # not by uvicorn, which would log a traceback
            gc.collect()
            # The objects that exist now stay until the end. Frozen, they are skipped by full collections,
            # during which all requests would wait.
            gc.freeze()
            started()
            async with _running(beside):
                with _quiet_signals():
                    await uvicorn.Server(settings).serve([listening])

    with asyncio.Runner(loop_factory=settings.get_loop_factory()) as runner:
        runner.run(run())


@asynccontextmanager
async def _running(beside: Callable[[], Coroutine[Any, Any, object]] | None) -> AsyncIterator[None]:
    task = asyncio.create_task(beside()) if beside is not None else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@contextmanager
def _quiet_signals() -> Iterator[None]:
    """Ignore, within the block, the signals by which a process is ended.

    uvicorn handles them itself, and raises a signal that it has received again at its end. That would end the
    process before the store is closed.
    """
    before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
