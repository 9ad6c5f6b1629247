"""Pack context trees into rows of equal length, and list where each continuation token is predicted.

This module knows token ids only. How a model scores a batch is in `editloop.policy.logprob`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from editloop.policy.tree import ContextTree, Layout

__all__ = ["TreeBatch", "best_width", "first_fit", "pack"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
"""Weights are in float32, because not every device has float64."""


@dataclass(frozen=True)
class TreeBatch:
    """Trees packed into rows, and the places at which each continuation token is predicted.

    B rows of R tokens hold K continuations. Their counted tokens are n nodes of the trees, so that n
    predictions are needed; a token that several continuations share is predicted once.

    Attributes:
        input_ids: Token ids [B, R].
        position_ids: Position of each token in its own sequence [B, R].
        subtree_end: Column one past each token's last descendant [B, R]. A padding token attends to itself
            only: a row of the mask without any key would make the softmax NaN.
        filled: True where a token is not padding [B, R].
        predictor: Flat index (row * R + column) of the token that predicts each target [n].
        target: Token id of each target [n].
        member: For each pair of a counted token and a continuation that contains it, the prediction of the
            token, as an index into `predictor` and `target` [m].
        owner: The continuation of each such pair [m]. The pairs of a continuation stand together, in the
            order of its tokens.
        weight: How much each such pair counts, float32 [m]; None counts all once. Tokens of weight 0 are not
            among them.
        lengths: Number of counted tokens of each continuation, by their weights [K].
        plain: True if every row is one plain sequence, so that a causal mask is enough.
    """

    input_ids: Ints
    position_ids: Ints
    subtree_end: Ints
    filled: NDArray[np.bool_]
    predictor: Ints
    target: Ints
    member: Ints
    owner: Ints
    weight: Floats | None
    lengths: Ints | Floats
    plain: bool


def pack(
    trees: Sequence[ContextTree],
    *,
    share: bool = True,
    from_fork: bool = False,
    attention_cost: float = 0.0,
    pad: int = 0,
) -> TreeBatch:
    """Pack trees into rows of equal length.

    Args:
        trees: The trees; their continuations are numbered in order, tree after tree.
        share: Whether shared prefixes stand once. If not, every continuation is a plain sequence in a row of
            its own, for models whose attention takes no mask.
        from_fork: Count only the tokens after the prefix that all continuations of a tree share. The
            difference of two log-probabilities stays the same, and the prefix needs no logits; of a tree with
            weights, if both weigh the prefix alike.
        attention_cost: The work of one query-key pair, in units of a token's work outside attention. The rows
            get the width of least cost; trees that are longer are split into plain sequences.
        pad: The token id that fills rows up.

    Returns:
        The batch; K is the sum of the trees' continuations.
    """
    capacity = best_width(trees, attention_cost) if share else 0  # with 0, every tree is split
    layouts, skips, weights = _pieces(trees, capacity, from_fork)
    lengths = [len(layout) for layout in layouts]
    rows = first_fit(lengths, capacity) if share else [[i] for i in range(len(layouts))]
    width = max(sum(lengths[i] for i in members) for members in rows)
    input_ids = np.full((len(rows), width), pad, np.int64)
    position_ids = np.zeros((len(rows), width), np.int64)
    subtree_end = np.broadcast_to(np.arange(1, width + 1), (len(rows), width)).copy()
    filled = np.zeros((len(rows), width), np.bool_)
    first_continuation = np.cumsum([0, *(len(layout.paths) for layout in layouts)])
    predictions = _Predictions(int(first_continuation[-1]), any(each is not None for each in weights))
    for r, members in enumerate(rows):
        column = 0
        for i in members:
            layout, here = layouts[i], slice(column, column + len(layouts[i]))
            input_ids[r, here] = layout.tokens
            position_ids[r, here] = layout.positions
            # No subtree reaches beyond its own tree, so that trees in one row do not see each other.
            subtree_end[r, here] = layout.subtree_end + column
            filled[r, here] = True
            predictions.add(layout, r * width + column, skips[i], int(first_continuation[i]), weights[i])
            column += len(layout)
    return TreeBatch(
        input_ids,
        position_ids,
        subtree_end,
        filled,
        predictor=np.concatenate(predictions.predictor),
        target=np.concatenate(predictions.target),
        member=np.concatenate(predictions.member),
        owner=np.concatenate(predictions.owner),
        weight=np.concatenate(predictions.weight) if predictions.weighted else None,
        lengths=predictions.lengths,
        plain=not share,
    )


Weights = tuple[tuple[float, ...], ...]


def _pieces(
    trees: Sequence[ContextTree], capacity: int, from_fork: bool
) -> tuple[list[Layout], list[int], list[Weights | None]]:
    """The layouts to pack, with trees above `capacity` split; the tokens that each skips, and its weights."""
    layouts, skips, weights = list[Layout](), list[int](), list[Weights | None]()
    for tree in trees:
        parts = [tree] if len(tree.layout) <= capacity else tree.split()
        layouts += [part.layout for part in parts]
        # The fork is that of the whole tree: its parts have one continuation each, and none of their own.
        skips += [tree.fork if from_fork else 0] * len(parts)
        weights += [part.weights for part in parts]
    return layouts, skips, weights


class _Predictions:
    """Collects the predictions of a batch, tree after tree; `TreeBatch` describes the attributes."""

    def __init__(self, continuations: int, weighted: bool) -> None:
        self.weighted = weighted
        self.weight: list[Floats] = []
        self.predictor: list[Ints] = []
        self.target: list[Ints] = []
        self.member: list[Ints] = []
        self.owner: list[Ints] = []
        zeros: Ints | Floats = np.zeros(continuations, np.int64)
        self.lengths = zeros.astype(np.float32) if weighted else zeros
        self._count = 0

    def add(self, layout: Layout, offset: int, skip: int, first: int, weights: Weights | None = None) -> None:
        """Add the predictions of one tree.

        Args:
            layout: The tree's layout.
            offset: Flat index of its first token.
            skip: How many tokens at the start of each continuation are not counted.
            first: Number of its first continuation in the batch.
            weights: How much each token of each continuation counts; None counts all once.
        """
        # A node that several continuations share is predicted once and belongs to each of them. This table
        # numbers the nodes of the tree when they are first counted; -1 means not yet.
        number = np.full(len(layout), -1, np.int64)
        for k, path in enumerate(layout.paths):
            nodes = path[skip:]
            # For an empty path, `predictors` would still name the context's last token.
            before = layout.predictors(path)[skip:] if len(path) else path
            if self.weighted:
                given = (1.0,) * len(nodes) if weights is None else weights[k][skip:]
                own: Floats = np.array(given, np.float32)
                nodes, before = nodes[own != 0], before[own != 0]  # the others need no logits
                self.weight.append(own[own != 0])
            fresh = number[nodes] < 0
            number[nodes[fresh]] = self._count + np.arange(fresh.sum())
            self._count += int(fresh.sum())
            self.predictor.append(offset + before[fresh])
            self.target.append(layout.tokens[nodes[fresh]])
            self.member.append(number[nodes])
            self.owner.append(np.full(len(nodes), first + k, np.int64))
            self.lengths[first + k] = self.weight[-1].sum() if self.weighted else len(nodes)


def best_width(trees: Sequence[ContextTree], attention_cost: float) -> int:
    """The row width at which packing the trees costs least.

    Args:
        trees: The trees to pack.
        attention_cost: As for `pack`.
    """
    # Dense attention compares every token of a row with all R tokens of it, padding too, whatever the mask
    # says. A single long tree would widen all rows and make every short tree expensive; splitting it repeats
    # its context but keeps rows narrow. So every width at which one more tree fits whole is tried. No row can
    # be narrower than the longest sequence.
    together = [len(tree.layout) for tree in trees]
    apart = [[len(tree.context) + len(c) for c in tree.continuations] for tree in trees]
    narrowest = max(max(lengths) for lengths in apart)

    def cost(width: int) -> float:
        lengths = [
            n
            for whole, parts in zip(together, apart, strict=True)
            for n in ([whole] if whole <= width else parts)
        ]
        # rows x tokens of a row x (the token's own work, and that of comparing it with `width` keys)
        return len(first_fit(lengths, width)) * width * (1 + attention_cost * width)

    # Sorted, so that the narrower of two equally good widths is taken.
    return min(sorted({narrowest, *(n for n in together if n > narrowest)}), key=cost)


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """First-fit decreasing bin packing, which uses at most 11/9 of the fewest possible rows, and one more.

    Args:
        lengths: Length of each item.
        capacity: The most that a row can hold; an item that is longer gets a row of its own.

    Returns:
        For each row the indices of its items.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        for r, free in enumerate(room):
            if lengths[i] <= free:
                rows[r].append(i)
                room[r] -= lengths[i]
                break
        else:
            rows.append([i])
            room.append(capacity - lengths[i])
    return rows
