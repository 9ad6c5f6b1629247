"""Simulated people who write with a server: they ask, edit what they are given, and send it back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

from editloop.errors import ServeError
from editloop.lab import Domain
from editloop.serve.client import AsyncClient
from editloop.users import get_user

__all__ = ["drive"]

PEOPLE: Mapping[str, str] = {"ada": "strong", "bo": "strong", "cleo": "medium", "dan": "light", "eve": "weak"}
"""Names, and what kind of user each is."""

SILENT = 0.1
"""Share of the responses that nobody comes back to."""


async def drive(
    url: str, domain: Domain, *, pause: float = 0.5, seed: int = 0, rounds: int | None = None
) -> int:
    """Write with the server, one person after another, until cancelled.

    Args:
        url: Of the server.
        domain: What is written about.
        pause: Mean seconds between two requests.
        seed: Of contexts, people and edits.
        rounds: How many requests; None goes on.

    Returns:
        How many edits were sent.
    """
    draws, sent, number = random.Random(seed), 0, 0
    users = {name: get_user(kind, domain, seed=seed + i) for i, (name, kind) in enumerate(PEOPLE.items())}
    contexts = domain.contexts(seed, stream="served")
    async with AsyncClient(url) as client:
        while rounds is None or number < rounds:
            context, name = next(contexts), draws.choice(list(users))
            try:
                draft = await client.complete(context, user=name)
                if draws.random() >= SILENT:
                    edit = await asyncio.to_thread(users[name].edit, context, draft.text, round=number)
                    await client.edit(draft.response_id, edit)
                    sent += 1
            except ServeError:
                await asyncio.sleep(1)
            number += 1
            await asyncio.sleep(draws.expovariate(1 / pause) if pause else 0)
    return sent
