"""Responses that were left without a trace: what the silence of an arm's users means.

A response that expires has no cost. Mostly that says nothing about it: the user went home, or the client
sends no edits. Then leaving it out costs nothing. But users may also leave *because of* the draft, and an arm
whose bad drafts are always left would keep the mean of its good ones.

**What counts.** Whether silence has to do with the arm shows in its rate. Of the R pulls of an arm that came
to an end, E expired; of the R' pulls of all other arms, E'. If arms make no difference, about R q pulls of
the arm expire, where q is the others' rate (E' + ½)/(R' + 1), and E differs from that by

    s = √(R q (1 − q) (1 + R/R')),

the noise of both counts. The pulls beyond that, **E − R q − 2 s**, count as discarded; if that is below 0,
none do. They are shared among the arm's scopes in proportion to the pulls that came to an end, because a
single user has too few to estimate a rate.

Where silence is as frequent with all arms, E − R q is above 2 s one time in forty. Where all of an arm's
responses are left and none of the others', a part of its first pull counts already.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from editloop.online.tallies import Pool

__all__ = ["abandoned_share"]

ERRORS = 2.0
"""How many standard errors of the expected number do not count."""


def abandoned_share(pool: Pool, others: Iterable[Pool]) -> float:
    """Return the share of an arm's finished pulls that count as discarded, although they only expired.

    Args:
        pool: The arm over all scopes.
        others: The other arms; without a finished pull of theirs there is nothing to compare with.

    Returns:
        A number in [0, 1).
    """
    if pool.expired <= 0:
        return 0.0
    expired = finished = 0.0
    for other in others:
        expired += other.expired
        finished += other.expired + other.observed
    own = pool.expired + pool.observed
    if finished <= 0 or own <= 0:
        return 0.0
    rate = (expired + 0.5) / (finished + 1)
    noise = math.sqrt(own * rate * (1 - rate) * (1 + own / finished))
    return max(0.0, pool.expired - own * rate - ERRORS * noise) / own
