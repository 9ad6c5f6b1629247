"""Style users: simulated people who edit a response toward the style that they want.

A style user parses the response into parts (style attributes and facts), compares each with the part that it
wants for this context, and repairs each wrong part with probability `repair`. What is right stays word for
word; a response that cannot be parsed is rewritten as a whole. A strong user repairs nearly everything and
so shows what it wants; a weak user repairs little and leaves most responses as they are.

This module knows no particular domain (it sees one through the `Domain` protocol), no costs and no policies.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from editloop.errors import ConfigError

__all__ = [
    "HABITS",
    "Domain",
    "Draft",
    "DriftingUser",
    "Habits",
    "StyleUser",
    "User",
    "edit_all",
    "habits_of",
]

Draft = Mapping[str, str]
"""A response taken apart: the value of each of its parts, by the part's name."""


class Habits(NamedTuple):
    """How a style user edits; see `StyleUser`."""

    repair: float
    tolerance: int = 0


HABITS: Mapping[str, Habits] = {
    "strong": Habits(0.95),
    "weak": Habits(0.12),
    "light": Habits(0.3),
    "medium": Habits(0.6),
    "heavy": Habits(0.9),
    "other": Habits(1.0, tolerance=2),
}
"""The named users. `docs/lab.md` says how strong and weak were chosen. `other` edits in another way, on which
policies can be tested that learned from somebody else: up to two wrong parts are left alone, and if there are
more, all are repaired."""


def habits_of(name: str) -> Habits:
    """Return the habits of a named user.

    Raises:
        ConfigError: There is no user of that name.
    """
    if name not in HABITS:
        raise ConfigError("there is no such user", seen=name, do=f"use one of {', '.join(HABITS)}")
    return HABITS[name]


@runtime_checkable
class Domain(Protocol):
    """What a style user needs from a domain."""

    def wanted(self, context: str) -> Draft:
        """Return the parts of the response that the user wants for this context."""
        ...

    def parse(self, response: str) -> Draft | None:
        """Return the parts of a response under the same names; None if it cannot be parsed."""
        ...

    def render(self, draft: Draft) -> str:
        """Return the response that consists of these parts."""
        ...


class User(Protocol):
    """Someone who edits responses: the kernel q(y' | x, y) of the paper."""

    @property
    def name(self) -> str:
        """The name under which the user's edits are logged."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the edits depend on besides their arguments, as JSON types."""
        ...

    def edit(self, context: str, response: str, *, round: int = 0) -> str:
        """Return the user's version of `response`; the response itself if it is left unchanged."""
        ...


def edit_all(user: User, contexts: Sequence[str], responses: Sequence[str]) -> list[str]:
    """Return a user's edits of many responses in their order, together if the user has `edit_many`."""
    edit_many = getattr(user, "edit_many", None)
    if edit_many is not None:
        return list(edit_many(contexts, responses))
    return [user.edit(context, response) for context, response in zip(contexts, responses, strict=True)]


class StyleUser:
    """A user who repairs each wrong part of a response with probability `repair`.

    An edit is a function of (seed, round, context, response) and does not depend on earlier edits, so a run
    can be split, resumed or reordered. Two users with the same seed draw the same numbers: whatever the user
    with the lower rate repairs, the other repairs as well.

    Args:
        domain: Reads and writes responses, and knows what is wanted.
        repair: The probability that a wrong part is repaired, in [0, 1].
        tolerance: A response with at most this many wrong parts is left unchanged.
        name: The name under which the user's edits are logged.
        seed: The seed of the user's choices.

    Raises:
        ConfigError: `repair` is not a probability, or `tolerance` is negative.
    """

    def __init__(
        self, domain: Domain, *, repair: float, name: str, seed: int = 0, tolerance: int = 0
    ) -> None:
        if not 0 <= repair <= 1:
            raise ConfigError("a repair rate is a probability", seen=repair, do="give a number in [0, 1]")
        if tolerance < 0:
            raise ConfigError("a tolerance is a number of parts", seen=tolerance, do="give at least 0")
        self.domain, self.repair, self.name, self.seed = domain, repair, name, seed
        self.tolerance = tolerance

    def edit(self, context: str, response: str, *, round: int = 0) -> str:
        """Return the repaired response; the response itself if nothing was repaired.

        Args:
            context: A context of the user's domain.
            response: Any text.
            round: The number of the round; the same response is edited independently in another round.

        Raises:
            ConfigError: The context is not of the user's domain.
        """
        wanted, draft = self.domain.wanted(context), self.domain.parse(response)
        if draft is None:
            return self.domain.render(wanted)
        if sum(wanted[part] != value for part, value in draft.items()) <= self.tolerance:
            return response
        # Seeded by the text of `repr`, because `hash` differs between processes.
        generator = random.Random(repr((self.seed, round, context, response)))
        # One draw per part, wrong or not, so that a part's repair does not depend on which others are wrong.
        repaired = {
            part: wanted[part] if generator.random() < self.repair else value for part, value in draft.items()
        }
        return self.domain.render(repaired)

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `User.settings`."""
        given = {"name": self.name, "repair": self.repair, "tolerance": self.tolerance, "seed": self.seed}
        return given | {"wishes": getattr(self.domain, "fingerprint", None)}

    def __repr__(self) -> str:
        return f"StyleUser({self.name!r}, repair={self.repair}, seed={self.seed})"


class DriftingUser:
    """A user who becomes another: each edit is by `after` with a probability that grows from 0 to 1.

    Args:
        before: The user of the first rounds.
        after: The user of the last rounds.
        start: The round from which the change begins.
        over: The number of rounds that the change takes; 0 for an abrupt change at `start`.
        seed: The seed that decides who edits during the change.

    Raises:
        ConfigError: `start` or `over` is negative.
    """

    def __init__(self, before: User, after: User, *, start: int, over: int = 0, seed: int = 0) -> None:
        if start < 0 or over < 0:
            raise ConfigError("the start and the length of a change are at least 0", seen=(start, over))
        self.before, self.after, self.start, self.over, self.seed = before, after, start, over, seed
        self.name = f"{before.name} to {after.name}"

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `User.settings`."""
        users = {"before": dict(self.before.settings), "after": dict(self.after.settings)}
        return users | {"start": self.start, "over": self.over, "seed": self.seed}

    def edit(self, context: str, response: str, *, round: int = 0) -> str:
        """See `User.edit`."""
        done = float(round >= self.start) if self.over == 0 else (round - self.start) / self.over
        # The response is not among the seeds, so that who edits a round does not depend on the policy.
        changed = random.Random(repr((self.seed, round, context))).random() < done
        return (self.after if changed else self.before).edit(context, response, round=round)
