"""Quotas: how much of something there may be at once, in all and for one key."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from editloop.serve.problem import Problem

__all__ = ["PendingBodies", "Quota", "RateLimit"]


class Quota:
    """A count with a limit over all keys, and one for each key.

    Args:
        limit: Over all keys.
        share: Share of it that one key may have. A request without a key may have all of it, because a server
            without keys has one user.
        what: What is counted, for messages.
        code: As of `Problem`.
    """

    def __init__(self, limit: int, share: float, *, what: str, code: str) -> None:
        self.limit, self.key_limit = limit, max(1, int(limit * share))
        self._what, self._code = what, code
        self._used: Counter[str | None] = Counter()

    @property
    def used(self) -> int:
        """How much is used, over all keys."""
        return self._used.total()

    def acquire(self, key: str | None, n: int = 1) -> None:
        """Use some of the quota.

        Raises:
            Problem: 429, there is not enough left.
        """
        if key is not None and self._used[key] + n > self.key_limit:
            raise Problem(429, f"too many {self._what} of this key", code=self._code, retry_after=1)
        if self.used + n > self.limit:
            raise Problem(429, f"too many {self._what}", code=self._code, retry_after=1)
        self._used[key] += n

    def release(self, key: str | None, n: int = 1) -> None:
        """Give back what was acquired."""
        self._used[key] -= n
        if not self._used[key]:
            del self._used[key]

    @contextmanager
    def one(self, key: str | None) -> Iterator[None]:
        """Within it, one unit is acquired.

        Raises:
            Problem: As of `acquire`.
        """
        self.acquire(key)
        try:
            yield
        finally:
            self.release(key)


class PendingBodies:
    """Requests whose bodies should arrive soon: so many at once, and each no longer than a time limit.

    If there are too many, a new one takes the place of the one that has waited longest, of the key with the
    most. A client that sends its body at once never waits long enough to lose its place, so that the limit
    meets only those that keep connections open and send nothing.

    Args:
        limit: How many at once.
        seconds: The time limit of each.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit, self.seconds = limit, seconds
        self._by_key: dict[str | None, dict[asyncio.Timeout, None]] = {}

    @asynccontextmanager
    async def one(self, key: str | None) -> AsyncIterator[None]:
        """Within it, one more is pending.

        Raises:
            TimeoutError: It took too long, or lost its place.
        """
        async with asyncio.timeout(self.seconds) as timeout:
            if sum(map(len, self._by_key.values())) >= self.limit:
                self._end_oldest()
            self._by_key.setdefault(key, {})[timeout] = None
            try:
                yield
            finally:
                self._remove(key, timeout)

    def _end_oldest(self) -> None:
        key = max(self._by_key, key=lambda each: len(self._by_key[each]))
        oldest = next(iter(self._by_key[key]))
        self._remove(key, oldest)
        if not oldest.expired():
            oldest.reschedule(asyncio.get_running_loop().time())

    def _remove(self, key: str | None, timeout: asyncio.Timeout) -> None:
        pending = self._by_key.get(key, {})
        pending.pop(timeout, None)
        if not pending:
            self._by_key.pop(key, None)


class RateLimit:
    """A token bucket for each key.

    Args:
        rate: Requests per second; None sets no limit.
        burst: Requests that may arrive at once.
    """

    def __init__(self, rate: float | None, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key: str) -> None:
        """Take a token.

        Raises:
            Problem: 429, there is none left.
        """
        if self.rate is None:
            return
        now = time.monotonic()
        tokens, then = self._buckets.get(key, (float(self.burst), now))
        tokens = min(float(self.burst), tokens + (now - then) * self.rate)
        if tokens < 1:
            self._buckets[key] = (tokens, now)
            raise Problem(429, "too many requests", code="rate_limit", retry_after=(1 - tokens) / self.rate)
        self._buckets[key] = (tokens - 1, now)
