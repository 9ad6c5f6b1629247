"""The context tree: one context and all its continuations, with every shared prefix laid out once.

A tree is laid out in depth-first order, so the descendants of token `j` follow it without a gap and end
before `subtree_end[j]`. That one vector is the whole attention mask: token `i` attends to token `j` exactly
if `j <= i < subtree_end[j]`. A row that holds several trees needs nothing more, because no token's subtree
reaches beyond its own tree.

This module knows token ids only: no model, no tokenizer, and no roles, such as which continuation is the
edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["ContextTree", "Layout", "common_prefix"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """The L nodes of a context tree, in depth-first order.

    Attributes:
        tokens: Token ids [L].
        positions: Depth of each token in the tree, which is its position id [L].
        subtree_end: Index one past each token's last descendant [L].
        paths: For each continuation the indices of its tokens, without those of the context.
        context_length: Number of tokens of the context, which come first.
    """

    tokens: Ints
    positions: Ints
    subtree_end: Ints
    paths: tuple[Ints, ...]
    context_length: int

    def __len__(self) -> int:
        return len(self.tokens)

    def predictors(self, path: Ints) -> Ints:
        """Index of the token whose logits predict each token of `path` [len(path)]."""
        # A token is predicted by its parent in the tree; the parent of the first one ends the context.
        return np.concatenate([[self.context_length - 1], path[:-1]]).astype(np.int64)


@dataclass(frozen=True)
class ContextTree:
    """One context and any number of its continuations, as token ids.

    Args:
        context: Token ids of the prompt, at least one: the first token of a continuation needs a predictor.
        continuations: Token ids of each continuation, the end-of-turn token included. A continuation may be
            empty.
        weights: How much each token of each continuation counts, at least 0; None counts every token once.

    Raises:
        ValueError: There is no context token, no continuation, not one weight for each token, or one below 0.
    """

    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if not self.context:
            raise ValueError("a context tree needs at least one context token")
        if not self.continuations:
            raise ValueError("a context tree needs at least one continuation")
        if self.weights is not None and [*map(len, self.weights)] != [*map(len, self.continuations)]:
            raise ValueError("weights need one number for each token of each continuation")
        if any(w < 0 for own in self.weights or () for w in own):
            raise ValueError("a token's weight is at least 0")

    @cached_property
    def layout(self) -> Layout:
        """The depth-first layout, in which each shared prefix stands once."""
        # In sorted order, the prefix that a continuation shares with any earlier one is no longer than the
        # prefix it shares with the one right before it. One comparison for each continuation therefore finds
        # every branch, and no trie has to be built.
        start = len(self.context)
        tokens, positions = list(self.context), list(range(start))
        ends: list[int] = [0] * start
        paths: list[Ints] = [np.empty(0, np.int64)] * len(self.continuations)
        # The indices of the previous continuation's tokens. Those beyond the shared prefix have no further
        # descendants, so their subtrees end here.
        open_path: list[int] = []
        previous: tuple[int, ...] = ()
        for k in sorted(range(len(self.continuations)), key=self.continuations.__getitem__):
            current = self.continuations[k]
            shared = common_prefix(previous, current)
            for index in open_path[shared:]:
                ends[index] = len(tokens)
            new = range(len(tokens), len(tokens) + len(current) - shared)
            tokens.extend(current[shared:])
            positions.extend(range(start + shared, start + len(current)))
            ends.extend([0] * len(new))
            open_path = open_path[:shared] + list(new)
            paths[k] = np.array(open_path, np.int64)
            previous = current
        for index in (*range(start), *open_path):
            ends[index] = len(tokens)
        return Layout(
            np.array(tokens, np.int64),
            np.array(positions, np.int64),
            np.array(ends, np.int64),
            tuple(paths),
            start,
        )

    @cached_property
    def fork(self) -> int:
        """Length of the prefix that all continuations share, in tokens."""
        # All other continuations stand between these two in sorted order, and begin as both of them do.
        first, last = min(self.continuations), max(self.continuations)
        return common_prefix(first, last)

    @property
    def shared_fraction(self) -> float:
        """Share of the tokens of separate sequences that the tree saves, in [0, 1)."""
        separate = sum(len(self.context) + len(c) for c in self.continuations)
        return 1.0 - len(self.layout) / separate

    def split(self) -> list[ContextTree]:
        """The same continuations as trees of one continuation each, which are plain sequences."""
        weights = [None] * len(self.continuations) if self.weights is None else [(w,) for w in self.weights]
        return [ContextTree(self.context, (c,), w) for c, w in zip(self.continuations, weights, strict=True)]

    @property
    def lengths(self) -> list[float]:
        """How many tokens of each continuation count, by their weights."""
        return [float(sum(w)) for w in self.weights] if self.weights else [*map(len, self.continuations)]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of leading items that `a` and `b` have in common."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    # Bisection over slices, which are compared in C; a loop over tokens would be Python's. The invariant is
    # a[:low] == b[:low] and a[:high] != b[:high].
    low, high = 0, n
    while low < high - 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
