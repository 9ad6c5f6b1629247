"""Style users: simulated people who edit a response toward the style that they want.

A style user reads the response's parts (style attributes and facts), compares each with the part that it
wants for this context, and repairs each wrong one with probability `repair`. What is right stays word for
word; a garbled response, in which no parts can be read, is rewritten wholly. A strong user repairs nearly
everything and so shows what it wants; a weak user repairs little and leaves most responses as they are.

This module does not know any domain: it sees one through the `Domain` protocol. It does not know costs
or policies either.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Protocol

from editloop.errors import ConfigError

__all__ = ["REPAIR_RATES", "Domain", "Draft", "StyleUser", "User", "get_user"]

Draft = Mapping[str, str]
"""A response taken apart: the value of each of its parts, by the part's name."""

REPAIR_RATES: Mapping[str, float] = {"strong": 0.95, "weak": 0.12}
"""Probability with which each named user repairs a wrong part. How they were chosen: `docs/lab.md`."""


class Domain(Protocol):
    """What a style user needs to know of a domain."""

    def wanted(self, context: str) -> Draft:
        """The parts of the response that the user wants for this context."""
        ...

    def parse(self, response: str) -> Draft | None:
        """The parts of a response, under the same names; None if it is garbled."""
        ...

    def render(self, draft: Draft) -> str:
        """The response that is made of these parts."""
        ...


class User(Protocol):
    """Someone who edits responses: the kernel q(y' | x, y) of the paper."""

    @property
    def name(self) -> str:
        """The name under which the user's edits are logged."""
        ...

    def edit(self, context: str, response: str, *, round: int = 0) -> str:
        """The user's version of `response`; the response itself if it was left as it is."""
        ...


class StyleUser:
    """A user who repairs each wrong part of a response with probability `repair`.

    An edit is a function of (seed, round, context, response), whatever was edited before it, so a run can
    be split, resumed or re-ordered. Two users with one seed draw the same numbers: what the one with the
    lower rate repairs, the other repairs too.

    Args:
        domain: Reads and writes responses, and knows what is wanted.
        repair: Probability that a wrong part is repaired, in [0, 1].
        name: The name under which the user's edits are logged.
        seed: The user's own randomness.

    Raises:
        ConfigError: `repair` is not a probability.
    """

    def __init__(self, domain: Domain, *, repair: float, name: str, seed: int = 0) -> None:
        if not 0 <= repair <= 1:
            raise ConfigError("a repair rate is a probability", seen=repair, do="give a number in [0, 1]")
        self.domain, self.repair, self.name, self.seed = domain, repair, name, seed

    def edit(self, context: str, response: str, *, round: int = 0) -> str:
        """The repaired response; the response itself if nothing was repaired.

        Args:
            context: A context of the user's domain.
            response: Any text.
            round: Repeats of one (context, response) in different rounds are edited independently.

        Raises:
            ConfigError: The context is not of the user's domain.
        """
        wanted, draft = self.domain.wanted(context), self.domain.parse(response)
        if draft is None:
            return self.domain.render(wanted)
        generator = random.Random(repr((self.seed, round, context, response)))
        # One draw per part, wrong or not: a part's repair does not depend on which others are wrong.
        repaired = {
            part: wanted[part] if generator.random() < self.repair else value for part, value in draft.items()
        }
        return self.domain.render(repaired)

    def __repr__(self) -> str:
        return f"StyleUser({self.name!r}, repair={self.repair}, seed={self.seed})"


def get_user(name: str, domain: Domain, *, seed: int = 0) -> StyleUser:
    """The style user of that name: one of `REPAIR_RATES`.

    Raises:
        ConfigError: There is no user of that name.
    """
    if name not in REPAIR_RATES:
        raise ConfigError("there is no such user", seen=name, do=f"use one of {', '.join(REPAIR_RATES)}")
    return StyleUser(domain, repair=REPAIR_RATES[name], name=name, seed=seed)
