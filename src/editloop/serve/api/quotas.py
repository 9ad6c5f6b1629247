"""Quotas: how much of something may be in use at once, over all keys and for one key.

They are changed only by the event loop's thread, and no method awaits between a check and the change that it
permits. So they need no lock.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from editloop.serve.problem import Problem

__all__ = ["PendingBodies", "Quota", "RateLimit"]

MAX_BUCKETS = 10_000
"""The number of buckets at which those that are full are dropped, of keys that have not asked for long."""


class Quota:
    """A count with a limit over all keys, and one for each key.

    Args:
        limit: Over all keys.
        share: Share of it that one key may have. A request without a key may have all of it, because a server
            without keys has one user.
        what: What is counted, for messages.
        code: The code of the problem, as in `Problem`.
    """

    def __init__(self, limit: int, share: float, *, what: str, code: str) -> None:
        self.limit, self.key_limit = limit, max(1, int(limit * share))
        self._what, self._code = what, code
        self._used: Counter[str | None] = Counter()

    @property
    def used(self) -> int:
        """How much is in use, over all keys."""
        return self._used.total()

    def acquire(self, key: str | None, n: int = 1) -> None:
        """Use `n` units of the quota.

        Raises:
            Problem: 429, there is not enough left.
        """
        if key is not None and self._used[key] + n > self.key_limit:
            raise Problem(429, f"too many {self._what} by this key", code=self._code, retry_after=1)
        if self.used + n > self.limit:
            raise Problem(429, f"too many {self._what}", code=self._code, retry_after=1)
        self._used[key] += n

    def release(self, key: str | None, n: int = 1) -> None:
        """Give back what was acquired."""
        self._used[key] -= n
        if not self._used[key]:
            del self._used[key]

    @contextmanager
    def using(self, key: str | None, n: int = 1) -> Iterator[None]:
        """Use `n` units within the block.

        Raises:
            Problem: As in `acquire`.
        """
        self.acquire(key, n)
        try:
            yield
        finally:
            self.release(key, n)


class PendingBodies:
    """Requests whose bodies should arrive soon: a limited number at once, each for a limited time.

    If there are too many, a new one takes the place of the one that has waited longest, of the key with the
    most. A client that sends its body at once never waits long enough to lose its place. So the limit affects
    only clients that keep connections open and send nothing.

    Args:
        limit: The maximum number at once.
        seconds: The time limit of each.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit, self.seconds = limit, seconds
        # Dictionaries without values, because they keep the order of insertion: the first is the oldest.
        self._by_key: dict[str | None, dict[asyncio.Timeout, None]] = {}

    @asynccontextmanager
    async def one(self, key: str | None) -> AsyncIterator[None]:
        """Count one more pending body within the block.

        Raises:
            TimeoutError: The body took too long, or lost its place.
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
        # A deadline of now ends the block of that other request with a TimeoutError, at its next await. One
        # that has expired in this same round of the event loop ends anyway, and cannot be rescheduled.
        if not oldest.expired():
            oldest.reschedule(asyncio.get_running_loop().time())

    def _remove(self, key: str | None, timeout: asyncio.Timeout) -> None:
        pending = self._by_key.get(key, {})
        pending.pop(timeout, None)
        if not pending:
            self._by_key.pop(key, None)


class RateLimit:
    """A token bucket for each key: it gains `rate` tokens a second, holds `burst`, and a request takes one.

    Args:
        rate: Requests per second; None sets no limit.
        burst: Requests that may arrive at once.
    """

    def __init__(self, rate: float | None, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self._buckets: dict[str, tuple[float, float]] = {}  # by key: its tokens, and when they were counted
        self._limit = MAX_BUCKETS

    def take(self, key: str) -> None:
        """Take a token.

        Raises:
            Problem: 429, there is none left.
        """
        if self.rate is None:
            return
        now = time.monotonic()
        if len(self._buckets) >= self._limit:
            self._drop_full(now)
        tokens, then = self._buckets.get(key, (float(self.burst), now))
        tokens = min(float(self.burst), tokens + (now - then) * self.rate)
        if tokens < 1:
            self._buckets[key] = (tokens, now)
            raise Problem(429, "too many requests", code="rate_limit", retry_after=(1 - tokens) / self.rate)
        self._buckets[key] = (tokens - 1, now)

    def _drop_full(self, now: float) -> None:
        """Drop the buckets that are full by now: a new one would be, too."""
        assert self.rate is not None
        self._buckets = {
            key: (tokens, then)
            for key, (tokens, then) in self._buckets.items()
            if tokens + (now - then) * self.rate < self.burst
        }
        self._limit = max(MAX_BUCKETS, 2 * len(self._buckets))  # rarely again, however many are left
