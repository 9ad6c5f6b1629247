"""Streams of chunks, and several awaitables at once, as the completion service needs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from editloop.serve.backends.base import Chunk, Completion

__all__ = ["chained", "last_of", "replayed"]


async def chained(first: Chunk, rest: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    """All chunks of a stream that has begun; closing this closes the backend's generator at once."""
    try:
        yield first
        async for chunk in rest:
            yield chunk
    finally:
        if hasattr(rest, "aclose"):
            await rest.aclose()


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
