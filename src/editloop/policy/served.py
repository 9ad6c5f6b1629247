"""A policy of a run folder under the permanent name that it has as an arm."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ServedPolicy"]


@dataclass(frozen=True)
class ServedPolicy:
    """A policy that is served as an arm.

    Attributes:
        arm: Its permanent name, with a hash of its weights: `sft@1f2e3d4c`.
        name: Its name in the run: `sft`, `mixture`, `base` ...
        run: The run folder.
        weights: The weights of a mixture's parts, by their arms; empty for any other policy.
        uses: Of an in-context policy, the policies that it asks: first the one that answers, and last the one
            that says what users prefer, which may be the same. Empty for any other policy.
    """

    arm: str
    name: str
    run: Path
    weights: Mapping[str, float] = field(default_factory=dict)
    uses: tuple[ServedPolicy, ...] = ()

    def parts(self) -> list[ServedPolicy]:
        """The policies that have to be loaded for it: itself, or the parts of a mixture."""
        if not self.weights:
            return [self]
        return [ServedPolicy(arm, arm.partition("@")[0], self.run) for arm in self.weights]

    def part_for(self, response_id: str) -> ServedPolicy:
        """The policy that generates a response: itself, or a part drawn by the mixture's weights.

        The draw is seeded by the response's identity. So a request that is sent again gets the same part,
        even from another replica.
        """
        return random.Random(response_id).choices(self.parts(), [*self.weights.values()] or None)[0]
