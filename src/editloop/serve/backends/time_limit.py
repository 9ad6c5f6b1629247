"""A time limit for reading a run folder, which may lie on a mount that hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from editloop.errors import RunError

__all__ = ["within_time_limit"]

T = TypeVar("T")

CHECK_SECONDS = 600.0
"""Seconds in which a run folder must be read; a large model on a slow disk takes minutes."""


async def within_time_limit(work: Callable[[], T]) -> T:
    """The result of work that runs in a thread of its own. A thread that hangs is abandoned.

    `asyncio.to_thread` would not do: a thread of its pool that hangs on a dead mount would stay occupied, and
    the process would wait for it at its end. A daemon thread ends with the process.

    Raises:
        RunError: The work takes too long.
    """
    event_loop = asyncio.get_running_loop()
    found: asyncio.Future[T] = event_loop.create_future()

    def deliver(settle: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the event loop has ended
            # After a timeout the future is done, and setting it again would raise.
            event_loop.call_soon_threadsafe(lambda: None if found.done() else settle())

    def run() -> None:
        try:
            result = work()
        except Exception as error:
            failure = error  # Python deletes the name `error` at the end of this clause, before the delivery
            deliver(lambda: found.set_exception(failure))
        else:
            deliver(lambda: found.set_result(result))

    threading.Thread(target=run, name="run folder", daemon=True).start()
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await found
    except TimeoutError:
        raise RunError(
            f"the run folder could not be read in {CHECK_SECONDS:g} s", do="check its disk or mount"
        ) from None
