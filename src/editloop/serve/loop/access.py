"""How requests reach the store: through its writer, and by reads that have a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from editloop.errors import StoreError
from editloop.serve.loop.commands import Command
from editloop.serve.loop.writer import Writer
from editloop.serve.problem import store_unavailable
from editloop.store.database import TIMEOUT_SECONDS, Connection, Store

__all__ = ["StoreAccess"]

T = TypeVar("T")


class StoreAccess:
    """Reads and writes for requests; an error of the store becomes a 503.

    Args:
        store: What is read.
        writer: What writes to it.
    """

    def __init__(self, store: Store, writer: Writer) -> None:
        self.store, self.writer = store, writer

    @property
    def down(self) -> str | None:
        """Why the store cannot be written; None if it can."""
        return self.writer.down

    async def write(self, command: Command[T], *, hurry: bool = True) -> T:
        """What a command returns, once it is on the disk; see `Writer.write`.

        Raises:
            Problem: The command was refused; or 503, the store is down.
        """
        try:
            return await self.writer.write(command, hurry=hurry)
        except StoreError as error:
            raise store_unavailable(error) from error

    async def read(self, query: Callable[[Connection], T]) -> T:
        """What a query finds.

        Raises:
            Problem: 503, the store is down or takes too long.
        """
        # A SQLite store that cannot be written, because the disk is full, can still be read. PostgreSQL is
        # not asked while it is down: each read would hold a thread of the pool until its timeout.
        down = None if self.store.is_sqlite else self.down
        if down is not None:
            raise store_unavailable(down)
        try:
            # The database's own timeout is half of this and comes first, unless the database hangs. Then the
            # thread is left behind, since a thread cannot be cancelled.
            async with asyncio.timeout(2 * TIMEOUT_SECONDS):
                return await asyncio.to_thread(self.store.read, query)
        except TimeoutError as error:
            raise store_unavailable("the store does not answer in time") from error
        except StoreError as error:
            raise store_unavailable(error) from error
