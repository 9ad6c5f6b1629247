"""Places for what is there at once: so many in all, and for one key no more than its share."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from editloop.serve.problem import Problem

__all__ = ["Places", "Waiting"]


class Places:
    """A count with a limit for all, and one for each key.

    Args:
        most: In all.
        share: Of them, for one key; the others are left to the other keys. Who has no key may have all:
            nobody else is there.
        what: That there are too many of, as it is told.
        code: As of `Problem`.
    """

    def __init__(self, most: int, share: float, *, what: str, code: str) -> None:
        self.most, self.of_one = most, max(1, int(most * share))
        self._what, self._code = what, code
        self._taken: Counter[str | None] = Counter()

    @property
    def taken(self) -> int:
        """How many are taken."""
        return self._taken.total()

    def take(self, key: str | None, n: int = 1) -> None:
        """Take places for a key.

        Raises:
            Problem: 429, there are not so many.
        """
        if key is not None and self._taken[key] + n > self.of_one:
            raise Problem(429, f"too many {self._what} of this key", code=self._code, retry_after=1)
        if self.taken + n > self.most:
            raise Problem(429, f"too many {self._what}", code=self._code, retry_after=1)
        self._taken[key] += n

    def leave(self, key: str | None, n: int = 1) -> None:
        """Leave places that were taken."""
        self._taken[key] -= n
        if not self._taken[key]:
            del self._taken[key]

    @contextmanager
    def one(self, key: str | None) -> Iterator[None]:
        """Within it, a place is taken.

        Raises:
            Problem: As of `take`.
        """
        self.take(key)
        try:
            yield
        finally:
            self.leave(key)


class Waiting:
    """Those who wait for something that should come soon: so many, and each no longer than a limit.

    Where there are too many, a newcomer has the place of who has waited longest, among those of the key with
    the most. What is sent as it should be comes soon, and never waits long enough to lose its place.

    Args:
        most: In all.
        seconds: For each.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self.most, self.seconds = most, seconds
        self._by_key: dict[str | None, dict[asyncio.Timeout, None]] = {}

    @asynccontextmanager
    async def one(self, key: str | None) -> AsyncIterator[None]:
        """Within it, one more waits.

        Raises:
            TimeoutError: It has waited too long, or lost its place.
        """
        async with asyncio.timeout(self.seconds) as limit:
            if sum(map(len, self._by_key.values())) >= self.most:
                self._end_one()
            self._by_key.setdefault(key, {})[limit] = None
            try:
                yield
            finally:
                self._leave(key, limit)

    def _end_one(self) -> None:
        key = max(self._by_key, key=lambda each: len(self._by_key[each]))
        oldest = next(iter(self._by_key[key]))
        self._leave(key, oldest)
        if not oldest.expired():
            oldest.reschedule(asyncio.get_running_loop().time())

    def _leave(self, key: str | None, limit: asyncio.Timeout) -> None:
        mine = self._by_key.get(key, {})
        mine.pop(limit, None)
        if not mine:
            self._by_key.pop(key, None)
