"""Users of code: they run the tests in their head, repair what fails, and impose their style on what
works."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from editloop.users.style import Domain, Draft, Habits

__all__ = ["CodeUser", "RunnableDomain"]


@runtime_checkable
class RunnableDomain(Domain, Protocol):
    """What a user of code needs from a domain, beside what a style user does."""

    @property
    def behaviour(self) -> tuple[str, ...]:
        """The parts of a draft on which it depends what it does; the others are style."""
        ...

    def passes(self, context: str, draft: Draft) -> bool:
        """Return whether a draft passes the tests of what a context asks."""
        ...


class CodeUser:
    """A user who looks whether a draft works before how it reads.

    Of a draft that fails its tests, each wrong part of its behaviour is repaired with probability `repair`.
    If it works now, or did before, each wrong part of its style is repaired with the same probability; the
    behaviour of a draft that works is left alone, however it was reached. A text that is not of the language
    is rewritten. As with a `StyleUser`, an edit is a function of (seed, round, context, response), and of
    two users with the same seed the one with the lower rate repairs a part of what the other does.

    Args:
        domain: Reads and writes drafts, runs their tests, and knows what is wanted.
        habits: How often a part is repaired, and how many wrong parts are left alone.
        name: The name under which the user's edits are logged.
        seed: The seed of the user's choices.
    """

    def __init__(self, domain: RunnableDomain, habits: Habits, *, name: str, seed: int = 0) -> None:
        self.domain, self.habits, self.name, self.seed = domain, habits, name, seed

    def edit(self, context: str, response: str, *, round: int = 0) -> str:
        """See `User.edit`."""
        wanted, draft = self.domain.wanted(context), self.domain.parse(response)
        if draft is None:
            return self.domain.render(wanted)
        works = self.domain.passes(context, draft)
        behaviour = frozenset(() if works else self.domain.behaviour)
        style = draft.keys() - set(self.domain.behaviour)
        wrong = [part for part in behaviour | style if draft[part] != wanted[part]]
        if len(wrong) <= self.habits.tolerance:
            return response
        # Seeded by the text of `repr`, because `hash` differs between processes. One draw for each part,
        # wrong or not, so that a part's repair does not depend on which others are wrong.
        generator = random.Random(repr((self.seed, round, context, response)))
        draws = {part: generator.random() < self.habits.repair for part in draft}
        # An operand, `finish_by`, goes with its operation, `finish`: one makes no sense without the other.
        draws = {part: draws[part.removesuffix("_by")] for part in draft}
        repaired = {**draft, **{part: wanted[part] for part in behaviour if draws[part]}}
        if works or self.domain.passes(context, repaired):
            repaired |= {part: wanted[part] for part in style if draws[part]}
        return self.domain.render(repaired)

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `User.settings`."""
        given = {"name": self.name, **self.habits._asdict(), "seed": self.seed}
        return given | {"wishes": getattr(self.domain, "fingerprint", None)}

    def __repr__(self) -> str:
        return f"CodeUser({self.name!r}, repair={self.habits.repair}, seed={self.seed})"
