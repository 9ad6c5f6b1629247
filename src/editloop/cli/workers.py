"""`editloop serve --workers N`: processes that share one listening socket, each of them a replica.

The parent opens the socket and answers no request; it starts a worker again that has ended. A connection
waits in the socket's queue until any worker takes it, so none is lost there with a worker that dies. Each
worker runs the same command as a child, which ends with its parent, however that ends (`cli.child`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from editloop.cli.autopilot import child_command
from editloop.errors import ServeError
from editloop.serve.loop.state_folder import worker_folder

__all__ = ["Worker", "run_workers"]

log = logging.getLogger("editloop.serve")

VARIABLE = "EDITLOOP_WORKER"
"""The environment variable by which a child knows that it is a worker: `number:socket:pipe`."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 60.0
"""Seconds until a worker that has ended is started again; the pause is doubled if it did not live long."""

LONG_LIFE = 60.0
"""Seconds after which a worker that ends is started again without a longer pause."""

STOP_SECONDS = 30.0
"""Seconds in which a worker has to end: its requests end, and what it has to write is written."""


class Worker(NamedTuple):
    """What a child knows of its place among the workers.

    Attributes:
        number: Its number, from 1.
        listens: The descriptor of the listening socket.
        pipe: The descriptor of the pipe by which it says that it is ready.
    """

    number: int
    listens: int
    pipe: int

    @classmethod
    def of_environment(cls) -> Worker | None:
        """The place of this process; None if it is no worker."""
        text = os.environ.pop(VARIABLE, None)  # its own children are no workers
        return None if text is None else cls(*map(int, text.split(":")))

    @property
    def is_first(self) -> bool:
        """Whether it is the one that says for all what is served."""
        return self.number == 1

    def folder(self, state: Path) -> Path:
        """Its state folder."""
        return worker_folder(state, self.number)

    def listening(self) -> socket.socket:
        """The socket at which all workers listen."""
        return socket.socket(fileno=self.listens)

    def say_ready(self) -> None:
        """Tell the parent that requests are answered."""
        with suppress(OSError):  # it has gone
            os.write(self.pipe, b"1")
            os.close(self.pipe)


def run_workers(
    count: int, listening: socket.socket, beside: Callable[[], Coroutine[Any, Any, object]] | None = None
) -> None:
    """Run workers until a signal ends them.

    Args:
        count: How many.
        listening: The socket.
        beside: Makes a coroutine that runs beside them.

    Raises:
        ServeError: A worker cannot start.
    """

    async def run() -> None:
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        first = asyncio.Event()  # the others need not repeat what it has done, nor why it failed
        work: list[Coroutine[Any, Any, object]] = [
            _keep(number, listening, first) for number in range(1, count + 1)
        ]
        work += [ended.wait()] if beside is None else [ended.wait(), beside()]
        tasks = [asyncio.create_task(each) for each in work]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    asyncio.run(run())


async def _keep(number: int, listening: socket.socket, first: asyncio.Event) -> None:
    """Run a worker until this task is cancelled; start it again when it ends.

    Raises:
        ServeError: It has ended before it was ever ready.
    """
    if number > 1:
        await first.wait()
    was_ready, pause = False, FIRST_PAUSE
    while True:
        began = time.monotonic()
        process, pipe = await _begin(number, listening)
        try:
            if await asyncio.to_thread(os.read, pipe, 1):
                was_ready = True
                first.set()
            status = await process.wait()
        except asyncio.CancelledError:
            await _end(process)
            raise
        finally:
            os.close(pipe)
        if not was_ready:
            raise ServeError(
                f"worker {number} cannot start", seen=f"status {status}", do="see what it says above"
            )
        log.warning("worker %d has ended with %s; it starts again in %.1f s", number, status, pause)
        await asyncio.sleep(pause)
        pause = FIRST_PAUSE if time.monotonic() - began > LONG_LIFE else min(2 * pause, LONGEST_PAUSE)


async def _begin(number: int, listening: socket.socket) -> tuple[asyncio.subprocess.Process, int]:
    """Start a worker; return it, and the pipe by which it will say that it is ready."""
    reading, writing = os.pipe()
    place = f"{number}:{listening.fileno()}:{writing}"
    try:
        process = await asyncio.create_subprocess_exec(
            *child_command(),
            *sys.argv[1:],
            stdin=asyncio.subprocess.PIPE,
            pass_fds=(listening.fileno(), writing),
            env=os.environ | {VARIABLE: place},
            start_new_session=True,  # Ctrl-C reaches the parent alone, which ends the workers
        )
    finally:
        os.close(writing)
    return process, reading


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    if process.returncode is None:
        process.kill()
        await process.wait()
