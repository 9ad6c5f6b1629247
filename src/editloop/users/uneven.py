"""Users whose edits differ much in size: mostly next to nothing, and now and then a rewrite."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from editloop.errors import ConfigError
from editloop.users.style import User

__all__ = ["UnevenUser"]


class UnevenUser:
    """A user who mostly edits as one does, and rarely as another.

    Args:
        usual: Who edits mostly, such as one who repairs little.
        rare: Who edits the other drafts, such as one who repairs everything.
        probability: How often it is the rare one, in [0, 1].
        name: The name under which the user's edits are logged.
        seed: The seed that decides who edits.

    Raises:
        ConfigError: It is no probability.
    """

    def __init__(
        self, usual: User, rare: User, probability: float, *, name: str = "uneven", seed: int = 0
    ) -> None:
        if not 0 <= probability <= 1:
            raise ConfigError("how often a user rewrites is a probability", seen=probability)
        self.usual, self.rare, self.probability = usual, rare, probability
        self.name, self.seed = name, seed

    def edit(self, context: str, response: str, *, round: int = 0) -> str:
        """See `User.edit`."""
        drawn = random.Random(repr(("uneven", self.seed, round, context, response))).random()
        return (self.rare if drawn < self.probability else self.usual).edit(context, response, round=round)

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `User.settings`."""
        users = {"usual": dict(self.usual.settings), "rare": dict(self.rare.settings)}
        return users | {"probability": self.probability, "seed": self.seed}
