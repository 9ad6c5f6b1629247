"""Places for what is there at once: so many in all, and for one key no more than its share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from editloop.serve.problem import Problem

__all__ = ["Places"]


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
