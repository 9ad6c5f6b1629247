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
"""Time that requests under way are given to end."""


def listen(host: str, port: int) -> socket.socket:
    """Open a socket to listen at; port 0 takes a free one.

    Raises:
        ServeError: The port is in use, or the host is not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, because asyncio turns off Nagle's algorithm only if it knows that this is TCP.
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
    """How uvicorn serves an application; idle connections and slow heads have a time limit."""
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
    """Serve until a signal comes, and close the store.

    Args:
        app: From `create_app`.
        listening: From `listen`.
        started: Called when requests are answered.
        limits: On requests, as of `create_app`.
        beside: What else runs in the event loop meanwhile.

    Raises:
        EditLoopError: The store, the backend or a run cannot be used.
    """
    settings = server_settings(app, limits)

    async def run() -> None:
        async with app.router.lifespan_context(app):  # not in uvicorn, so that an error is one line
            gc.collect()
            # What is there now stays for ever; each full collection would go through it while requests wait.
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
    """Within it, the signal that uvicorn raises again at its end ends nothing: the store is closed first."""
    before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
