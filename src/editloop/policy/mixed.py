"""A mixture of a run's policies as a policy: each response is drawn from one of them, by its weight."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from typing import Any

import numpy as np

from editloop.edits import ContextLike, as_contexts
from editloop.policy.model import Policy
from editloop.policy.sampling import Sample
from editloop.policy.tree import ContextTree

__all__ = ["MixedPolicy"]


class MixedPolicy(Policy):
    """π = Σ α_k π_k over policies that share a base.

    Args:
        base: The base.
        weights: α by name.
        load: Gives a policy of that name for as long as it is needed.
    """

    def __init__(
        self,
        base: Policy,
        weights: Mapping[str, float],
        load: Callable[[str], AbstractContextManager[Policy]],
    ) -> None:
        super().__init__(**{each.name: getattr(base, each.name) for each in fields(Policy)})
        self.weights, self._load = dict(weights), load

    @property
    def has_reference(self) -> bool:
        """The base is another distribution."""
        return True

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within it nothing lies on the base, as always between two calls."""
        yield

    def sample(self, contexts: Sequence[ContextLike], *, seed: int = 0, **options: Any) -> list[Sample]:
        """One response for each context; which policy draws it follows seed, place and context."""
        contexts = as_contexts(contexts)
        names = [
            random.Random(repr((seed, i, context))).choices([*self.weights], [*self.weights.values()])[0]
            for i, context in enumerate(contexts)
        ]
        samples: list[Sample | None] = [None] * len(contexts)
        for name, policy in self._policies():
            mine = [i for i, chosen in enumerate(names) if chosen == name]
            drawn = policy.sample([contexts[i] for i in mine], seed=seed, **options) if mine else []
            for i, sample in zip(mine, drawn, strict=True):
                samples[i] = sample
        return [sample for sample in samples if sample is not None]

    def log_probs(self, trees: Sequence[ContextTree], **options: Any) -> list[list[float]]:
        """log Σ α_k π_k of every continuation of every tree; not from where they fork.

        Raises:
            ValueError: `from_fork` is asked for: parts of mixtures do not cancel.
        """
        if options.get("from_fork"):
            raise ValueError("the log-probability of a mixture cannot be counted from a fork")
        parts = []
        for name, policy in self._policies():
            scores = policy.log_probs(trees, **options)
            parts.append([np.array(each) + np.log(self.weights[name]) for each in scores])
        return [np.logaddexp.reduce(each).tolist() for each in zip(*parts, strict=True)]

    def features(self, trees: Sequence[ContextTree], **options: Any) -> Any:
        """A mixture has no hidden states.

        Raises:
            ValueError: Always.
        """
        raise ValueError("a mixture has no features of its own: ask one of its policies")

    def _policies(self) -> Iterator[tuple[str, Policy]]:
        for name, weight in self.weights.items():
            if weight > 0:
                with self._load(name) as policy:
                    yield name, policy
