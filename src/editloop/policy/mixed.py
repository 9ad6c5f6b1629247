"""A mixture of a run's policies as a policy: each response is sampled from one of them, chosen by weight."""

from __future__ import annotations

import math
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

__all__ = ["MixedPolicy", "mixed_log_probs"]


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

    def sample(
        self,
        contexts: Sequence[ContextLike],
        *,
        seed: int = 0,
        places: Sequence[tuple[int, ...]] | None = None,
        progress: Callable[[int], None] | None = None,
        **options: Any,
    ) -> list[Sample]:
        """Sample one response for each context, as `Policy.sample` does.

        Which policy a response comes from, and the response itself, depend on nothing but the seed, the
        context and its place: it is the response that this policy alone gives in that place.
        """
        contexts = as_contexts(contexts)
        at = places or [(i,) for i in range(len(contexts))]
        # `hash` of a text differs between processes; `random.Random` seeds itself from the text's bytes.
        names = [
            random.Random(repr((seed, place, context))).choices([*self.weights], [*self.weights.values()])[0]
            for place, context in zip(at, contexts, strict=True)
        ]
        samples: list[Sample | None] = [None] * len(contexts)
        done = 0
        for name in dict.fromkeys(names):
            mine = [i for i, chosen in enumerate(names) if chosen == name]
            with self._load(name) as policy:
                found = policy.sample(
                    [contexts[i] for i in mine],
                    seed=seed,
                    places=[at[i] for i in mine],
                    progress=_after(done, progress),
                    **options,
                )
            for i, sample in zip(mine, found, strict=True):
                samples[i] = sample
            done += len(mine)
        return [sample for sample in samples if sample is not None]

    def log_probs(
        self, trees: Sequence[ContextTree], *, progress: Callable[[int], None] | None = None, **options: Any
    ) -> list[list[float]]:
        """log Σ_k α_k π_k of every continuation of every tree, as `Policy.log_probs` returns it.

        Raises:
            ValueError: `from_fork` is set. A prefix's probability differs between the policies, so it does
                not cancel from a difference of the mixture's log-probabilities.
        """
        if options.get("from_fork"):
            raise ValueError("the log-probability of a mixture cannot leave out a shared prefix (from_fork)")
        # A policy of weight 0 need not be loaded. Adapters share one base, so that only one of them is
        # attached at a time.
        used = [name for name, weight in self.weights.items() if weight > 0]
        parts = {}
        for k, name in enumerate(used):
            # A tree is done when all policies have read it, but they read one after the other: the progress
            # is the share of all reading, counted in trees.
            own = _after(k * len(trees), progress, divisor=len(used))
            with self._load(name) as policy:
                parts[name] = policy.log_probs(trees, progress=own, **options)
        return mixed_log_probs(self.weights, parts)

    def features(self, trees: Sequence[ContextTree], **options: Any) -> Any:
        """Not available: a mixture has no hidden states.

        Raises:
            ValueError: Always.
        """
        raise ValueError("a mixture has no features of its own: ask one of its policies")


def mixed_log_probs(
    weights: Mapping[str, float], parts: Mapping[str, Sequence[Sequence[float]]]
) -> list[list[float]]:
    """log Σ_k α_k π_k of continuations, given the log-probabilities under each policy.

    Args:
        weights: The weight α_k of each policy, by name.
        parts: For each policy of positive weight the log-probabilities of the continuations of each tree.
    """
    # In log space: the probability of a response of a few hundred tokens underflows.
    used = {name: math.log(weight) for name, weight in weights.items() if weight > 0}
    tables = [[np.array(each) + log for each in parts[name]] for name, log in used.items()]
    return [np.logaddexp.reduce(each).tolist() for each in zip(*tables, strict=True)]


def _after(
    before: int, progress: Callable[[int], None] | None, *, divisor: int = 1
) -> Callable[[int], None] | None:
    """A progress that goes on from what others have done, in units of which `divisor` make one."""
    return None if progress is None else lambda done: progress((before + done) // divisor)
