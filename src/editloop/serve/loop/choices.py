"""Several choices for one request (`n`): each is a response of its own, with a decision of its own.

They are decided and generated as `n` requests that arrive together would be. So each choice has an identity
for its edits, another arm answers for one that fails, and each propensity is right by itself: the chance of
its arm, given the decisions in flight at that moment. One arm for all choices would be one draw of the bandit
that the log shows as `n` rows, and whatever is estimated from these would seem surer than it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from editloop.serve.loop.commands import ExpireResponses
from editloop.serve.loop.completion import CompletionRequest, CompletionResult, CompletionStream
from editloop.serve.loop.completions import CompletionService
from editloop.serve.loop.streams import abandon
from editloop.serve.problem import Problem

__all__ = ["MAX_CHOICES", "complete_choices", "stream_choices"]

MAX_CHOICES = 8
"""The most choices of one request."""

T = TypeVar("T", CompletionResult, CompletionStream)


async def complete_choices(
    service: CompletionService, request: CompletionRequest, n: int
) -> list[CompletionResult]:
    """Generate whole responses to one request; see `CompletionService.complete`.

    Raises:
        Problem: As there; if one choice cannot be had, no edit of any is expected.
        UpstreamRejectedError: As there.
    """
    return await _all_of(service, request, n, service.complete)


async def stream_choices(
    service: CompletionService, request: CompletionRequest, n: int
) -> list[CompletionStream]:
    """Begin responses to one request; see `CompletionService.stream` and `complete_choices`."""
    return await _all_of(service, request, n, service.stream)


async def _all_of(
    service: CompletionService,
    request: CompletionRequest,
    n: int,
    answer: Callable[[CompletionRequest], Awaitable[T]],
) -> list[T]:
    if n == 1:
        return [await answer(request)]
    tasks = [asyncio.ensure_future(answer(each)) for each in _requests(request, n)]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        done = [each for each in ended if not isinstance(each, BaseException)]
        await asyncio.shield(_give_up(service, done))
        raise


async def _give_up(service: CompletionService, done: Sequence[CompletionResult | CompletionStream]) -> None:
    """Record that nobody will see these choices, because another one of their request has failed."""
    for each in done:
        if isinstance(each, CompletionStream):
            await abandon(each.chunks)
    if done:
        with suppress(Problem):  # if it cannot be recorded, they expire later
            await service.loop.write(
                ExpireResponses([each.response_id for each in done], time.time(), "void")
            )


def _requests(request: CompletionRequest, n: int) -> list[CompletionRequest]:
    """The request of each choice. Under one seed all texts would be equal, so each choice has its own."""
    seed = request.body.get("seed")
    found = []
    for i in range(n):
        body, response_id = request.body, request.response_id
        if i and type(seed) is int:
            body = {**body, "seed": seed - i if seed > 0 else seed + i}  # still a number of 64 bits
        if i and response_id is not None:
            response_id = f"{response_id}-{i}"
        found.append(replace(request, body=body, response_id=response_id))
    return found
