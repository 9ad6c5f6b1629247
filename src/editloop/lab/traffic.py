"""Simulated people who write with a server: they ask for drafts, edit what they get, and send the edits back.

The lab knows the server only through the protocol of a client, so that it imports nothing from
`editloop.serve`, whose `AsyncClient` fits the protocol.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any, Protocol

from editloop.errors import ServeError
from editloop.lab.world import World
from editloop.users import get_user

__all__ = ["DraftClient", "write_and_edit"]

PEOPLE: Mapping[str, str] = {"ada": "strong", "bo": "strong", "cleo": "medium", "dan": "light", "eve": "weak"}
"""Names, and the kind of user that each is."""

ABANDONED_SHARE = 0.1
"""Share of the drafts that nobody comes back to."""


class DraftClient(Protocol):
    """What people write with."""

    async def complete(self, messages: str, **options: Any) -> Any:
        """Return a draft with the attributes `text` and `response_id`."""
        ...

    async def edit(self, response_id: str, edit: str) -> object:
        """Send back the edit of a draft."""
        ...


async def write_and_edit(
    client: DraftClient, domain: World, *, pause: float = 0.5, seed: int = 0, rounds: int | None = None
) -> int:
    """Write with a server, one person after another, until cancelled.

    Args:
        client: The client of the server.
        domain: The domain that contexts and wishes come from.
        pause: The mean number of seconds between two requests.
        seed: The seed of contexts, people and edits.
        rounds: The number of requests; None for no limit.

    Returns:
        The number of edits that were sent.
    """
    draws, sent, number = random.Random(seed), 0, 0
    users = {name: get_user(kind, domain, seed=seed + i) for i, (name, kind) in enumerate(PEOPLE.items())}
    contexts = domain.contexts(seed, stream="served")
    while rounds is None or number < rounds:
        context, name = next(contexts), draws.choice(list(users))
        try:
            draft = await client.complete(context, user=name)
            if draws.random() >= ABANDONED_SHARE:
                # In a thread, because a user may take seconds, which must not stop other tasks of the loop.
                edit = await asyncio.to_thread(users[name].edit, context, draft.text, round=number)
                await client.edit(draft.response_id, edit)
                sent += 1
        except ServeError:  # the server may be starting or busy; the next request tries again
            await asyncio.sleep(1)
        number += 1
        await asyncio.sleep(draws.expovariate(1 / pause) if pause else 0)
    return sent
