"""Rule users: simulated people who edit whatever a real model writes, by rules over plain text.

Where a style user parses a response into parts, and can read the lab's grammar only, a rule user applies to
the text each rule that holds for the context and is broken, with probability `repair`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from editloop.users.style import habits_of
from editloop.users.text_rules import Facts, Rule

__all__ = ["RuleUser", "RuledWorld"]


@runtime_checkable
class RuledWorld(Protocol):
    """What a rule user needs from where contexts come from."""

    @property
    def name(self) -> str:
        """The name of the world."""
        ...

    @property
    def fingerprint(self) -> str:
        """What tells worlds with other rules apart."""
        ...

    def stated_facts(self, context: str) -> Facts:
        """Return what a context states."""
        ...

    def rules(self, context: str) -> Mapping[str, Rule]:
        """Return the rules that hold for a context, by name, in the order in which they are applied."""
        ...


class RuleUser:
    """A user who applies each broken rule with probability `repair`.

    An edit is a function of (seed, round, context, response), as that of a `StyleUser`, and two users with
    the same seed draw the same numbers.

    Args:
        world: Says which rules hold for a context.
        name: One of `HABITS`, from which the repair rate and the tolerance are taken: a response that breaks
            at most that many rules is left unchanged.
        seed: The seed of the user's choices.

    Raises:
        ConfigError: There is no user of that name.
    """

    def __init__(self, world: RuledWorld, *, name: str, seed: int = 0) -> None:
        self.world, self.name, self.seed = world, name, seed
        self.repair, self.tolerance = habits_of(name)

    def edit(self, context: str, response: str, *, round: int = 0) -> str:
        """See `User.edit`."""
        facts, rules = self.world.stated_facts(context), self.world.rules(context)
        if sum(rule(response, facts) != response for rule in rules.values()) <= self.tolerance:
            return response
        text = response
        for name, rule in rules.items():
            # A generator for each rule: whether one is applied does not depend on which others there are.
            draw = random.Random(repr((self.seed, round, context, response, name))).random()
            if draw < self.repair:
                text = rule(text, facts)
        return text

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `User.settings`."""
        given = {"name": self.name, "repair": self.repair, "tolerance": self.tolerance, "seed": self.seed}
        return given | {"rules": self.world.fingerprint}

    def __repr__(self) -> str:
        return f"RuleUser({self.name!r}, {self.world.name!r}, seed={self.seed})"
