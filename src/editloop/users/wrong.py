"""Users who sometimes edit wrongly: what they leave is worse than the draft that they were given."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from editloop.errors import ConfigError
from editloop.users.style import Domain, Draft, User

__all__ = ["MISTAKES", "SpoilableDomain", "WrongUser"]


class SpoilableDomain(Domain, Protocol):
    """A domain that knows how a draft becomes worse."""

    def spoiled(self, context: str, draft: Draft, generator: random.Random) -> Draft:
        """Return a draft with one part worse than it was."""
        ...


Mistake = Callable[[SpoilableDomain, str, str, random.Random], str]
"""Makes of a context and a response the text that is left, with a generator."""


def _spoiled(domain: SpoilableDomain, context: str, response: str, generator: random.Random) -> str:
    """One part that was right is another one now: a style that nobody wants, or a bug."""
    draft = domain.parse(response)
    return response if draft is None else domain.render(domain.spoiled(context, draft, generator))


def _reverted(domain: SpoilableDomain, context: str, response: str, generator: random.Random) -> str:
    """Several right parts are taken back, as of somebody who puts back an old version."""
    draft = domain.parse(response)
    if draft is None:
        return response
    for _ in range(3):
        draft = domain.spoiled(context, draft, generator)
    return domain.render(draft)


def _broken(domain: SpoilableDomain, context: str, response: str, generator: random.Random) -> str:
    """A word is gone, so that the text is mostly none of the domain any more."""
    pieces = response.split(" ")
    del pieces[generator.randrange(len(pieces))]
    return " ".join(pieces)


MISTAKES: Mapping[str, Mistake] = {"spoiled": _spoiled, "reverted": _reverted, "broken": _broken}
"""The kinds of wrong edits."""


class WrongUser:
    """A user whose edit is, with some probability, a mistake in place of what they would have made.

    Args:
        user: Who edits otherwise.
        domain: Knows what makes a draft worse.
        probability: How often an edit is wrong, in [0, 1].
        mistakes: The kinds of mistakes, of which one is drawn each time.
        seed: The seed of the mistakes.

    Raises:
        ConfigError: It is no probability, or there is no such kind.
    """

    def __init__(
        self,
        user: User,
        domain: SpoilableDomain,
        probability: float,
        *,
        mistakes: tuple[str, ...] = tuple(MISTAKES),
        seed: int = 0,
    ) -> None:
        if not 0 <= probability <= 1:
            raise ConfigError("how often an edit is wrong is a probability", seen=probability)
        if not mistakes or set(mistakes) - set(MISTAKES):
            raise ConfigError(
                "unknown kind of mistake", seen=mistakes, do=f"use some of {', '.join(MISTAKES)}"
            )
        self.user, self.domain, self.probability = user, domain, probability
        self.mistakes, self.seed, self.name = mistakes, seed, user.name

    def is_wrong(self, context: str, response: str, *, round: int = 0) -> bool:
        """Return whether the edit of this round is a mistake. The same for any higher probability."""
        return self._generator(context, response, round).random() < self.probability

    def edit(self, context: str, response: str, *, round: int = 0) -> str:
        """See `User.edit`."""
        if not self.is_wrong(context, response, round=round):
            return self.user.edit(context, response, round=round)
        generator = self._generator(context, response, round)
        generator.random()  # the number that decided
        return MISTAKES[generator.choice(self.mistakes)](self.domain, context, response, generator)

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `User.settings`."""
        own = {"wrong": self.probability, "mistakes": list(self.mistakes), "seed": self.seed}
        return {"user": dict(self.user.settings), **own}

    def _generator(self, context: str, response: str, round: int) -> random.Random:
        return random.Random(repr(("wrong", self.seed, round, context, response)))
