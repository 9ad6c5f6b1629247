"""The counts that a bandit's state consists of: by scope and arm, and by arm over all scopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["Pool", "Tally", "filled", "values_of"]

Sums = TypeVar("Sums", "Tally", "Pool")


class Tally:
    """The counts of one arm in one scope; all are discounted.

    Attributes:
        observed: The pulls whose cost is known.
        pending: The pulls in flight; N of Algorithm 1 is `observed + pending`.
        cost: The summed cost C of the observed pulls.
        square: Their summed squared cost.
        expired: The pulls whose cost will never be known.
    """

    __slots__ = ("cost", "expired", "observed", "pending", "square")

    def __init__(self) -> None:
        self.observed = self.pending = self.cost = self.square = self.expired = 0.0


class Pool:
    """The counts of one arm over all scopes s.

    They are kept up to date with each event, so that a decision needs no pass over all scopes, of which there
    may be as many as users, to know their spread (`editloop.online.pooling`).

    Attributes:
        scopes: The number of scopes that have observed the arm.
        observed: Σ n_s, the observed pulls.
        cost: Σ C_s, their summed cost.
        square: Their summed squared cost.
        between: Σ C_s² / n_s.
        observed_square: Σ n_s².
        expired: The pulls whose cost will never be known.
    """

    __slots__ = ("between", "cost", "expired", "observed", "observed_square", "scopes", "square")

    def __init__(self) -> None:
        self.scopes = 0
        self.observed = self.cost = self.square = self.between = self.observed_square = self.expired = 0.0

    def count(self, tally: Tally, sign: int) -> None:
        """Add (+1) or subtract (-1) what one scope has observed.

        C_s²/n_s is not linear in the counts. So when a scope's counts change, the old ones are subtracted and
        the new ones added.
        """
        self.expired += sign * tally.expired
        n = tally.observed
        if n <= 0:
            return
        self.scopes += sign
        self.observed += sign * n
        self.cost += sign * tally.cost
        self.square += sign * tally.square
        self.between += sign * tally.cost * tally.cost / n
        self.observed_square += sign * n * n


def filled(sums: Sums, values: Sequence[float]) -> Sums:
    """Set sums to these values, in the order of their slots, and return them."""
    for name, value in zip(sums.__slots__, values, strict=True):
        setattr(sums, name, value)
    return sums


def values_of(sums: Tally | Pool) -> list[float]:
    """Return sums in the order of their slots, as `filled` takes them."""
    return [getattr(sums, name) for name in sums.__slots__]
