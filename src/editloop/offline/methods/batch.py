"""The input of a loss: the completions of a batch by role, with their log-probabilities and costs.

A loss is a mean over edits, tokens or pairs. A batch may be only a part of an optimiser step (gradient
accumulation, several processes). The loss divides by the totals of the whole step, so that the losses of the
parts add up to the loss of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from editloop.offline.examples import EDIT, RESPONSE, Completions
from editloop.policy import Policy, TreeBatch

__all__ = ["Batch", "Layout", "pack_completions"]


@dataclass(frozen=True)
class Layout:
    """The completions of a batch: those of n contexts, numbered consecutively from 0 to K − 1.

    Attributes:
        completions: The completions of each context [n].
        lengths: Number of counted tokens of each completion [K].
    """

    completions: Sequence[Completions]
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.completions)

    @cached_property
    def starts(self) -> list[int]:
        """The number of each context's first completion [n]."""
        return [0, *np.cumsum([len(each) for each in self.completions]).tolist()][: len(self)]

    @cached_property
    def context(self) -> Tensor:
        """The index of each completion's context [K]."""
        sizes = torch.tensor([len(each) for each in self.completions], dtype=torch.long)
        return torch.repeat_interleave(sizes)  # with one argument, it repeats each index i sizes[i] times

    def of(self, role: str) -> Tensor:
        """The numbers of the completions that have a role, in the order of the contexts [k]."""
        found = [
            start + index
            for start, each in zip(self.starts, self.completions, strict=True)
            for index in each.roles.get(role, ())
        ]
        return torch.tensor(found, dtype=torch.long)

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """The numbers of the edits (chosen) and of the responses (rejected), where these differ [p], [p]."""
        found = [
            (start + each.of(EDIT), start + each.of(RESPONSE))
            for start, each in zip(self.starts, self.completions, strict=True)
            if each.is_pair
        ]
        table = torch.tensor(found, dtype=torch.long).reshape(-1, 2)  # also of a batch without pairs
        return table[:, 0], table[:, 1]

    def known(self, name: str) -> Tensor:
        """`reference`, `cost`, `spread` or `start` of each completion, float64, NaN if it is not known [K].

        Args:
            name: The attribute of `Completions`.
        """
        table = [getattr(each, name) or (float("nan"),) * len(each) for each in self.completions]
        return torch.tensor([value for values in table for value in values], dtype=torch.float64)

    def totals(self) -> dict[str, float]:
        """Numbers of contexts, of tokens of edits, of pairs, and of contexts with several completions."""
        return {
            "contexts": float(len(self)),
            "edit_tokens": float(self.lengths[self.of(EDIT)].sum()),
            "pairs": float(len(self.pairs[0])),
            "choices": float(sum(len(each) > 1 for each in self.completions)),
        }


@dataclass(frozen=True)
class Batch:
    """A layout with the policy's log-probabilities.

    Attributes:
        layout: The completions.
        log_probs: log π of each, summed over its counted tokens, natural log [K].
        totals: The totals of the whole optimiser step, from the method's `totals`.
        log_squares: Σ_t log Σ_v π(v)² of each over its counted tokens, without gradient [K]; None unless the
            method asks for it (`Method.log_squares`), and in validation.
    """

    layout: Layout
    log_probs: Tensor
    totals: Mapping[str, float]
    log_squares: Tensor | None = None

    def index(self, role: str) -> Tensor:
        """The numbers of the completions that have a role [k]."""
        return self.layout.of(role).to(self.log_probs.device)

    @property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """The numbers of the chosen and of the rejected completion of each pair [p], [p]."""
        chosen, rejected = self.layout.pairs
        return chosen.to(self.log_probs.device), rejected.to(self.log_probs.device)

    @property
    def context(self) -> Tensor:
        """The index of each completion's context [K]."""
        return self.layout.context.to(self.log_probs.device)

    @property
    def lengths(self) -> Tensor:
        """Number of counted tokens of each completion [K]."""
        return self.layout.lengths.to(self.log_probs.device)

    @property
    def exact(self) -> torch.dtype:
        """The precision in which sums of log-probabilities are subtracted."""
        # A log-probability summed over hundreds of tokens is in the hundreds, where neighbouring float32
        # numbers are about 3e-5 apart. Subtracting two such sums in float64 adds no error of that size, and
        # the reference is kept in float64 anyway. Apple's GPUs have no float64.
        return torch.float64 if self.log_probs.device.type in ("cpu", "cuda") else torch.float32

    @property
    def reference(self) -> Tensor:
        """log π_ref of each completion [K]; NaN if the method does not need it."""
        return self.layout.known("reference").to(self.log_probs.device, self.exact)

    def bound(self, kappa: float) -> Tensor:
        """The pessimistic cost f̄ = f̂ + κ u of each completion [K]; NaN where costs were not estimated."""
        bound = self.layout.known("cost") + kappa * self.layout.known("spread")
        return bound.to(self.log_probs.device, self.exact)


def pack_completions(
    policy: Policy, completions: Sequence[Completions], *, from_fork: bool = False
) -> tuple[TreeBatch, Layout]:
    """Pack the trees of completions for one forward.

    Args:
        policy: The policy whose model will read them.
        completions: The completions of n contexts.
        from_fork: Count only the tokens after the prefix that all completions of a context share, which is
            enough for a loss that depends only on differences within a context.

    Returns:
        The packed trees, and the layout of their completions.
    """
    trees = policy.pack([each.tree for each in completions], from_fork=from_fork)
    return trees, Layout(completions, torch.from_numpy(trees.lengths))
