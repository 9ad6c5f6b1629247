"""Streams of chunks, and several awaitables at once, as the completion service needs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from typing import Any

from editloop.serve.backends.base import Chunk, Completion
from editloop.serve.loop.tool_calls import ToolCalls

__all__ = ["Gathered", "abandon", "chained", "last_of", "merged", "replayed"]


class Gathered:
    """The chunks of a stream so far, as one response."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._calls = ToolCalls()

    def add(self, chunk: Chunk) -> None:
        """Add a chunk.

        Raises:
            BackendUnavailableError: Its tool calls have another form than that of the API.
        """
        if content := chunk.delta.get("content"):
            self._parts.append(str(content))
        self._calls.add(chunk.delta.get("tool_calls") or ())

    def completion(self, last: Chunk) -> Completion:
        """The whole response, which has a text or calls tools.

        Args:
            last: The chunk that ends it.
        """
        text, calls = "".join(self._parts), self._calls.whole
        return Completion(
            None if calls else text,
            last.finish or "stop",
            {"role": "assistant", "content": text or None, "tool_calls": calls},
            last.usage,
            drafts=last.drafts,
            logprob=last.logprob,
        )


async def chained(first: Chunk, rest: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    """All chunks of a stream that has begun; closing this closes the backend's generator at once."""
    try:
        yield first
        async for chunk in rest:
            yield chunk
    finally:
        if hasattr(rest, "aclose"):
            await rest.aclose()


async def abandon(chunks: AsyncIterator[Chunk]) -> None:
    """End a stream of which nothing was read. A generator can clean up only if it has begun."""
    with suppress(Exception):
        await anext(chunks)
        if hasattr(chunks, "aclose"):
            await chunks.aclose()


async def merged(streams: Sequence[AsyncIterator[Chunk]]) -> AsyncIterator[tuple[int, Chunk]]:
    """The chunks of several streams as they come, each with the number of its stream.

    If one stream breaks off, or nobody reads any more, all are closed.
    """
    if len(streams) == 1:
        async for chunk in streams[0]:
            yield 0, chunk
        return
    # Each stream waits until its last chunk is taken, as a single one does.
    arrived: asyncio.Queue[tuple[int, Chunk | Exception | None]] = asyncio.Queue(1)
    tasks = [asyncio.create_task(_read(number, each, arrived)) for number, each in enumerate(streams)]
    left = len(tasks)
    try:
        while left:
            number, found = await arrived.get()
            if isinstance(found, Exception):
                raise found
            if found is None:
                left -= 1
            else:
                yield number, found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(
    number: int, chunks: AsyncIterator[Chunk], into: asyncio.Queue[tuple[int, Chunk | Exception | None]]
) -> None:
    """Put the chunks of a stream into a queue, and at last None or the error with which it breaks off."""
    try:
        async for chunk in chunks:
            await into.put((number, chunk))
        await into.put((number, None))
    except Exception as error:
        await into.put((number, error))
    finally:
        if hasattr(chunks, "aclose"):
            await chunks.aclose()


async def last_of(*work: Awaitable[Any]) -> Any:
    """The result of the last awaitable, once all are done; or the error of the first one that failed.

    All are awaited even if one fails: an error that nobody retrieves would be logged by asyncio.
    """
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results[-1]


async def replayed(completion: Completion) -> AsyncIterator[Chunk]:
    """A response that was generated before, as a stream of one part."""
    yield Chunk({"role": "assistant", "content": completion.text})
    yield Chunk({}, completion.finish)
