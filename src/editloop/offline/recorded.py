"""A policy whose samples are kept, so that whoever needs them again does not draw them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from editloop.edits import ContextLike
from editloop.policy import Policy, Sample

__all__ = ["RecordedPolicy"]


class RecordedPolicy(Policy):
    """A policy that keeps its samples by their place, and gives those that are kept without sampling.

    Args:
        policy: The policy that samples.
        kept: Samples by place; those that are drawn are added.
    """

    def __init__(self, policy: Policy, kept: dict[tuple[int, ...], Sample]) -> None:
        super().__init__(**{each.name: getattr(policy, each.name) for each in fields(Policy)})
        self._policy, self._kept = policy, kept

    def sample(
        self, contexts: Sequence[ContextLike], *, places: Sequence[Any] | None = None, **options: Any
    ) -> list[Sample]:
        """Sample as the policy does; calls differ in contexts and places only."""
        places = places or [(i,) for i in range(len(contexts))]
        if not all(place in self._kept for place in places):
            found = self._policy.sample(contexts, places=places, **options)
            self._kept.update(zip(places, found, strict=True))
        return [self._kept[place] for place in places]
