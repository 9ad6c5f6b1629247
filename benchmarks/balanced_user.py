"""A user of the lab who keeps the paper's Assumption 1: each attribute makes a Metropolis step towards π*.

The lab's other users only repair: there is no way back from an edit, so nothing that they do says how far a
policy may go. This one also spoils an attribute now and then, in the proportion that leaves π* as it is.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from editloop.lab import Domain
from editloop.users import get_user

__all__ = ["BALANCED", "BalancedUser", "get_editor"]

BALANCED = "balanced"
"""The name of the user."""

WANTED = 0.85
"""The probability that π* gives to the wanted value of an attribute; the others share the rest."""


class BalancedUser:
    """A user whose edits keep detailed balance with π*, in which attributes are independent.

    For each attribute another value is proposed, all with the same probability, and taken with the
    probability min(1, π*(new)/π*(old)). Facts are put right, because π* has no wrong ones.

    Args:
        domain: The domain.
        seed: The seed of the user's choices.
    """

    name = BALANCED

    def __init__(self, domain: Domain, *, seed: int = 0) -> None:
        self.domain, self.seed = domain, seed

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `User.settings`."""
        about = {"name": self.name, "wanted": WANTED, "seed": self.seed}
        return about | {"wishes": self.domain.fingerprint}

    def probability(self, attribute: str, value: str, wanted: str) -> float:
        """π* of a value of an attribute."""
        return WANTED if value == wanted else (1 - WANTED) / (len(self.domain.attributes[attribute]) - 1)

    def edit(self, context: str, response: str, *, round: int = 0) -> str:
        """See `User.edit`; a response that is no email is replaced by one that is right."""
        wanted, draft = self.domain.wanted(context), self.domain.parse(response)
        if draft is None:
            return self.domain.render(wanted)
        # Seeded by the text of `repr`, because `hash` differs between processes.
        generator, edited = random.Random(repr((self.seed, round, context, response))), dict(wanted)
        for attribute, values in self.domain.attributes.items():
            old = draft[attribute]
            new = generator.choice([value for value in values if value != old])
            ratio = self.probability(attribute, new, wanted[attribute]) / self.probability(
                attribute, old, wanted[attribute]
            )
            edited[attribute] = new if generator.random() < ratio else old
        return self.domain.render(edited)


def get_editor(name: str, domain: Domain, *, seed: int) -> Any:
    """The user of that name: this one, or one of the lab's."""
    return BalancedUser(domain, seed=seed) if name == BALANCED else get_user(name, domain, seed=seed)
