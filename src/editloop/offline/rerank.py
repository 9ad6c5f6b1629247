"""Best of n: several drafts of each context, of which the one with the least predicted cost is given.

A draft's bound f̂ + κ u comes from the cost model of a run (Eq. 5), with the uncertainty against drafts that
look cheap because nothing like them was logged. Of drafts that were cut none is chosen while another one came
to its end. A cost model that was not shown to predict the costs of new contexts chooses nothing: then the
first draft is given, which is the draft of the policy alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from editloop.edits import Context
from editloop.errors import ConfigError
from editloop.offline.cost_model.saved import predicted_costs
from editloop.policy import ContextTree, Encoder, Policy, RunFolder, Sample

__all__ = ["KAPPA", "BestOf", "Reranked", "choice", "compared", "draft_bounds", "no_reranking"]

KAPPA = 1.0
"""κ of the bound by which drafts are compared."""


@dataclass(frozen=True)
class Reranked:
    """The drafts of a context.

    Attributes:
        drafts: All drafts, in the order in which they were drawn [n].
        arms: The policy that wrote each [n].
        bounds: f̂ + κ u of each [n]; NaN for a draft that was not compared, because it was cut or alone.
        chosen: The place of the draft that is given.
    """

    drafts: tuple[Sample, ...]
    arms: tuple[str, ...]
    bounds: tuple[float, ...]
    chosen: int

    @property
    def sample(self) -> Sample:
        """The draft that is given."""
        return self.drafts[self.chosen]


def no_reranking(run: RunFolder) -> str | None:
    """Return why the cost model of a run may not choose among drafts; None if it may.

    This keeps a model out that predicts nothing. One that knows only which contexts cost much passes, and
    chooses by chance: a log has one response of most contexts, so that it cannot tell the two apart.

    It has to predict the costs of new contexts better than their mean does: the interval of its R² across
    folds of contexts must lie above 0.
    """
    record = run.manifest().cost_model
    if record is None or not run.cost_model.is_dir():
        return "the run has no cost model; fit it with a method that needs one, such as rl"
    found = record.cross_validated
    if found is None or found.r2 is None or found.low is None or found.high is None:
        return "too few contexts tell whether its cost model predicts anything"
    if not found.low > 0:
        return f"its cost model may predict nothing: R² {found.r2:.3f} [{found.low:.2f}, {found.high:.2f}]"
    return None


class BestOf:
    """A writer that draws several drafts and gives the one with the least predicted cost.

    Args:
        run: A run with a cost model.
        base: The run's base.
        arms: The policies that write. With several, they take turns.
        n: The drafts of each context.
        kappa: κ of the bound, at least 0.

    Attributes:
        objection: Why one draft is drawn in place of n; None if n are.

    Raises:
        ConfigError: No arms, n below 1, or a κ that is negative or not finite.
    """

    def __init__(
        self, run: RunFolder, base: Policy, arms: Sequence[str], n: int, *, kappa: float = KAPPA
    ) -> None:
        if not arms or n < 1:
            raise ConfigError("best of n needs a policy and at least one draft", seen=(tuple(arms), n))
        if not (math.isfinite(kappa) and kappa >= 0):
            raise ConfigError("kappa is a number of 0 or more", seen=kappa)
        self.run, self.base, self.arms, self.kappa = run, base, tuple(arms), kappa
        self.objection = no_reranking(run)
        # Without chance, all drafts of a context would be the same.
        self.n = 1 if self.objection or base.generation.temperature == 0 else n

    def sample(
        self,
        contexts: Sequence[Context],
        *,
        seed: int,
        max_new_tokens: int,
        progress: Callable[[int], None] | None = None,
    ) -> list[Sample]:
        """Return the draft that is given for each context, as `Policy.sample` returns responses."""
        found = self.reranked(contexts, seed=seed, max_new_tokens=max_new_tokens, progress=progress)
        return [each.sample for each in found]

    def reranked(
        self,
        contexts: Sequence[Context],
        *,
        seed: int,
        max_new_tokens: int,
        progress: Callable[[int], None] | None = None,
    ) -> list[Reranked]:
        """Draw n drafts of each context, and choose among them.

        The first draft of a context is what the first policy alone writes with this seed, and n drafts begin
        with those of any smaller n, so that all of them can be compared on the same drafts.

        Args:
            contexts: The contexts [N].
            seed: The seed of all drafts.
            max_new_tokens: Limit of a draft in tokens.
            progress: Called with the number of contexts, in parts, that are done.
        """
        by_number: dict[int, list[Sample]] = {}
        for place, arm in enumerate(self.arms[: self.n]):
            numbers = range(place, self.n, len(self.arms))
            asked = [(i, k) for k in numbers for i in range(len(contexts))]
            with self.run.policy(arm, self.base) as policy:
                samples = policy.sample(
                    [contexts[i] for i, _ in asked],
                    seed=seed,
                    places=[(i, k) if k else (i,) for i, k in asked],
                    max_new_tokens=max_new_tokens,
                    progress=self._progress(len(by_number) * len(contexts), progress),
                )
            for (_, k), sample in zip(asked, samples, strict=True):
                by_number.setdefault(k, []).append(sample)
        arms = tuple(self.arms[k % len(self.arms)] for k in range(self.n))
        drafts = list(zip(*(by_number[k] for k in range(self.n)), strict=True))
        bounds = self.bounds(contexts, drafts)
        return [
            Reranked(own, arms, tuple(each), choice(own, each))
            for own, each in zip(drafts, bounds, strict=True)
        ]

    def bounds(self, contexts: Sequence[Context], drafts: Sequence[Sequence[Sample]]) -> list[list[float]]:
        """Return f̂ + κ u of each draft of each context; NaN for those that are not compared.

        Args:
            contexts: The contexts [N].
            drafts: The drafts of each [N].
        """
        if self.objection is not None:
            return [[math.nan] * len(own) for own in drafts]

        def predict(trees: list[ContextTree]) -> NDArray[np.float64]:
            mean, spread = predicted_costs(self.run, self.base, trees, cached=False)
            return mean + self.kappa * spread

        return draft_bounds(self.base.encoder, contexts, drafts, predict)

    def _progress(self, before: int, progress: Callable[[int], None] | None) -> Callable[[int], None] | None:
        """The progress of the drafts that go on from so many, in contexts."""
        return None if progress is None else lambda done: progress((before + done) // self.n)


def draft_bounds(
    encoder: Encoder,
    contexts: Sequence[Context],
    drafts: Sequence[Sequence[Sample]],
    predict: Callable[[list[ContextTree]], NDArray[np.float64]],
) -> list[list[float]]:
    """Return the predicted cost of each draft of each context; NaN for those that are not compared.

    Args:
        encoder: The base's encoder.
        contexts: The contexts [N].
        drafts: The drafts of each [N].
        predict: Returns the predicted cost of each continuation of the trees, tree by tree.
    """
    found = [[math.nan] * len(own) for own in drafts]
    trees, places = [], []
    for i, (context, own) in enumerate(zip(contexts, drafts, strict=True)):
        mine = compared(own)
        if len(mine) < 2:
            continue
        tree = encoder.tree(context, [own[k].text for k in mine])
        if tree is not None:
            trees.append(tree)
            places += [(i, k) for k in mine]
    if trees:
        for (i, k), bound in zip(places, predict(trees).tolist(), strict=True):
            found[i][k] = bound
    return found


def compared(drafts: Sequence[Sample]) -> list[int]:
    """Return the places of the drafts that are compared.

    Those that are not blank, if there are any; of these the ones that came to their end, if there are any.
    """
    written = [k for k, each in enumerate(drafts) if each.text.strip()] or list(range(len(drafts)))
    return [k for k in written if drafts[k].finished] or written


def choice(drafts: Sequence[Sample], bounds: Sequence[float]) -> int:
    """Return the place of the draft with the least bound; without bounds, of the first that is compared."""
    places = compared(drafts)
    known = [k for k in places if not math.isnan(bounds[k])]
    return min(known, key=lambda k: bounds[k]) if known else places[0]
