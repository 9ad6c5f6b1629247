"""A mixture of a run's policies as a policy: each response is sampled from one of them, chosen by weight."""

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
    """The mixture π = Σ_k α_k π_k of policies that share a base.

    Args:
        base: The base.
        weights: The weight α_k of each policy, by name.
        load: Returns a context in which the policy of that name is loaded.
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
        """Always true, because the base differs from the mixture."""
        return True

    @contextmanager
    def reference(self) -> Iterator[None]:
        """A context in which the base carries no adapter."""
        # Adapters are attached within `sample` and `log_probs` only, so that there is nothing to switch off.
        yield

    def sample(self, contexts: Sequence[ContextLike], *, seed: int = 0, **options: Any) -> list[Sample]:
        """Sample one response for each context, as `Policy.sample` does.

        Which policy a response comes from depends only on the seed, the context and its place. The response
        itself also depends on its place among the contexts of that policy.
        """
        contexts = as_contexts(contexts)
        # `hash` of a text differs between processes; `random.Random` seeds itself from the text's bytes.
        names = [
            random.Random(repr((seed, i, context))).choices([*self.weights], [*self.weights.values()])[0]
            for i, context in enumerate(contexts)
        ]
        samples: list[Sample | None] = [None] * len(contexts)
        for name, policy in self._policies():
            mine = [i for i, chosen in enumerate(names) if chosen == name]
            found = policy.sample([contexts[i] for i in mine], seed=seed, **options) if mine else []
            for i, sample in zip(mine, found, strict=True):
                samples[i] = sample
        return [sample for sample in samples if sample is not None]

    def log_probs(self, trees: Sequence[ContextTree], **options: Any) -> list[list[float]]:
        """log Σ_k α_k π_k of every continuation of every tree, as `Policy.log_probs` returns it.

        Raises:
            ValueError: `from_fork` is set. A prefix's probability differs between the policies, so it does
                not cancel from a difference of the mixture's log-probabilities.
        """
        if options.get("from_fork"):
            raise ValueError("the log-probability of a mixture cannot leave out a shared prefix (from_fork)")
        parts = []
        for name, policy in self._policies():
            scores = policy.log_probs(trees, **options)
            parts.append([np.array(each) + np.log(self.weights[name]) for each in scores])
        # In log space: the probability of a response of a few hundred tokens underflows.
        return [np.logaddexp.reduce(each).tolist() for each in zip(*parts, strict=True)]

    def features(self, trees: Sequence[ContextTree], **options: Any) -> Any:
        """Not available: a mixture has no hidden states.

        Raises:
            ValueError: Always.
        """
        raise ValueError("a mixture has no features of its own: ask one of its policies")

    def _policies(self) -> Iterator[tuple[str, Policy]]:
        # A policy of weight 0 need not be loaded, and its log-weight would be log 0. Adapters share one base,
        # so that only one of them is attached at a time.
        for name, weight in self.weights.items():
            if weight > 0:
                with self._load(name) as policy:
                    yield name, policy
