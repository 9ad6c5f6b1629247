"""The context tree and its packing: layouts worked out by hand, then what holds for every tree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.policy.packing import TreeBatch, best_width, first_fit, pack
from editloop.policy.tree import ContextTree, common_prefix

CONTEXT = (50, 51)
Trees = list[ContextTree]


def paths(tree: ContextTree) -> list[list[int]]:
    return [path.tolist() for path in tree.layout.paths]


def test_two_continuations_that_part_after_a_token() -> None:
    layout = ContextTree(CONTEXT, ((7, 9), (7, 8, 6))).layout
    # In sorted order 7 8 6 comes first: 50 51 7 8 6 | 9.
    assert layout.tokens.tolist() == [50, 51, 7, 8, 6, 9]
    assert layout.positions.tolist() == [0, 1, 2, 3, 4, 3]
    assert layout.subtree_end.tolist() == [6, 6, 6, 5, 5, 6]
    assert [path.tolist() for path in layout.paths] == [[2, 5], [2, 3, 4]]
    assert layout.context_length == 2
    assert layout.predictors(layout.paths[0]).tolist() == [1, 2]
    assert layout.predictors(layout.paths[1]).tolist() == [1, 2, 3]


def test_three_continuations_with_a_fork_within_a_fork() -> None:
    tree = ContextTree(CONTEXT, ((1, 2, 3), (1, 4), (1, 2, 5)))
    layout = tree.layout
    assert layout.tokens.tolist() == [50, 51, 1, 2, 3, 5, 4]
    assert layout.positions.tolist() == [0, 1, 2, 3, 4, 4, 3]
    assert layout.subtree_end.tolist() == [7, 7, 7, 6, 5, 6, 7]
    assert paths(tree) == [[2, 3, 4], [2, 6], [2, 3, 5]]
    assert tree.fork == 1
    # Separately 3 contexts of 2 and 3 + 2 + 3 tokens: 14; the tree has 7.
    assert tree.shared_fraction == pytest.approx(0.5)


def test_a_continuation_that_is_a_prefix_of_another() -> None:
    tree = ContextTree(CONTEXT, ((1, 2), (1,)))
    assert tree.layout.tokens.tolist() == [50, 51, 1, 2]
    assert tree.layout.subtree_end.tolist() == [4, 4, 4, 4]
    assert paths(tree) == [[2, 3], [2]]
    assert tree.fork == 1


def test_continuations_that_are_equal_are_laid_out_once() -> None:
    tree = ContextTree(CONTEXT, ((1, 2), (3,), (1, 2)))
    assert tree.layout.tokens.tolist() == [50, 51, 1, 2, 3]
    assert paths(tree) == [[2, 3], [4], [2, 3]]


def test_an_empty_continuation_has_no_tokens() -> None:
    tree = ContextTree(CONTEXT, ((), (4,)))
    assert tree.layout.tokens.tolist() == [50, 51, 4]
    assert paths(tree) == [[], [2]]
    assert tree.fork == 0
    assert tree.layout.predictors(tree.layout.paths[0])[:0].tolist() == []


def test_a_single_continuation_is_a_plain_sequence() -> None:
    tree = ContextTree((9,), ((1, 2, 3),))
    assert tree.layout.positions.tolist() == [0, 1, 2, 3]
    assert tree.layout.subtree_end.tolist() == [4, 4, 4, 4]
    assert (tree.fork, tree.shared_fraction) == (3, 0.0)


def test_a_tree_needs_a_context_and_a_continuation() -> None:
    with pytest.raises(ValueError, match="at least one context token"):
        ContextTree((), ((1,),))
    with pytest.raises(ValueError, match="at least one continuation"):
        ContextTree((1,), ())


def test_the_width_is_what_costs_least() -> None:
    # Whole, a row of 1 + 2 * 10 = 21 tokens, split, two of 11: 21 (1 + 21 a) <= 22 (1 + 11 a) to a = 1 / 199.
    far = ContextTree((0,), (tuple(range(1, 11)), tuple(range(11, 21))))
    assert best_width([far], 0.0) == 21
    assert best_width([far], 1 / 200) == 21
    assert best_width([far], 1 / 198) == 11
    # With a tree of 5 tokens: two rows of 21, or three of 11, which have fewer places.
    near = ContextTree((0, 1, 2), ((3,), (4,)))
    assert best_width([far, near], 0.0) == 11
    assert best_width([near], 1.0) == 5


@pytest.mark.parametrize(
    ("a", "b", "shared"),
    [
        ((), (), 0),
        ((), (1,), 0),
        ((1,), (2,), 0),
        ((1, 2, 3), (1, 2, 3), 3),
        ((1, 2, 3), (1, 2, 4, 5), 2),
        ((1, 2), (1, 2, 4, 5), 2),
        ((0, 2, 3, 4, 5), (1, 2, 3, 4, 5), 0),
        (tuple(range(100)), (*range(63), 0, *range(64, 100)), 63),
    ],
)
def test_common_prefix(a: tuple[int, ...], b: tuple[int, ...], shared: int) -> None:
    assert common_prefix(a, b) == common_prefix(b, a) == shared


def test_rows_are_filled_by_the_longest_first() -> None:
    assert first_fit([3, 9, 6, 1, 7], 10) == [[1, 3], [4, 0], [2]]


def pairs(batch: TreeBatch) -> list[list[tuple[int, int]]]:
    """For each continuation: its counted (token that predicts, token predicted) in order."""
    flat = batch.input_ids.reshape(-1)
    return [
        [(int(flat[batch.predictor[m]]), int(batch.target[m])) for m in batch.member[batch.owner == k]]
        for k in range(len(batch.lengths))
    ]


def expected(trees: Trees, skip: list[int]) -> list[list[tuple[int, int]]]:
    """What `pairs` must be, read off the separate sequences."""
    result = []
    for tree, n in zip(trees, skip, strict=True):
        for continuation in tree.continuations:
            whole = (*tree.context, *continuation)
            start = len(tree.context) + n
            result.append(list(zip(whole[start - 1 :], whole[start:], strict=False)))
    return result


def test_two_trees_lie_in_one_row_and_see_themselves_only() -> None:
    trees = [ContextTree((1,), ((2, 3), (2, 4), (5,))), ContextTree((6,), ((7,),))]
    batch = pack(trees, pad=99)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5], [6, 7, 99, 99, 99]]
    assert batch.filled.tolist() == [[True] * 5, [True, True, False, False, False]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 2, 1], [0, 1, 0, 0, 0]]
    assert batch.subtree_end.tolist() == [[5, 4, 3, 4, 5], [2, 2, 3, 4, 5]]
    assert batch.lengths.tolist() == [2, 2, 1, 1]
    assert not batch.plain
    # The shared 2 is predicted once: 5 distinct predictions for 6 counted tokens.
    assert len(batch.target) == 5
    assert len(batch.member) == 6
    assert pairs(batch) == [[(1, 2), (2, 3)], [(1, 2), (2, 4)], [(1, 5)], [(6, 7)]]


def test_a_short_tree_fills_the_row_of_a_long_one() -> None:
    trees = [ContextTree((1, 2, 3, 4), ((5,),)), ContextTree((6,), ((7,),)), ContextTree((8,), ((9, 10),))]
    batch = pack(trees)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5], [8, 9, 10, 6, 7]]
    assert batch.subtree_end.tolist() == [[5] * 5, [3, 3, 3, 5, 5]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 1]]
    assert pairs(batch) == [[(4, 5)], [(6, 7)], [(8, 9), (9, 10)]]


def test_from_the_fork_on_only_what_differs_is_counted() -> None:
    trees = [ContextTree((1,), ((2, 3, 4), (2, 3, 5, 6))), ContextTree((1,), ((7, 8), (7,)))]
    batch = pack(trees, from_fork=True)
    assert batch.lengths.tolist() == [1, 2, 1, 0]
    assert pairs(batch) == [[(3, 4)], [(3, 5), (5, 6)], [(7, 8)], []]


def test_without_sharing_every_continuation_is_a_row() -> None:
    batch = pack([ContextTree((1,), ((2, 3), (2, 4, 5)))], share=False, pad=9)
    assert batch.plain
    assert batch.input_ids.tolist() == [[1, 2, 3, 9], [1, 2, 4, 5]]
    assert batch.filled.tolist() == [[True, True, True, False], [True] * 4]
    assert pairs(batch) == [[(1, 2), (2, 3)], [(1, 2), (2, 4), (4, 5)]]


def test_a_tree_that_does_not_pay_is_split_within_a_shared_batch() -> None:
    far = ContextTree((0,), (tuple(range(1, 11)), tuple(range(11, 21))))
    near = ContextTree((0, 1, 2), ((3,), (4,)))
    batch = pack([far, near], attention_cost=0.1, from_fork=True)
    assert not batch.plain
    assert batch.input_ids.shape == (3, 11)  # 11, 11 and 5 tokens
    assert batch.filled.sum() == 27
    assert pairs(batch) == expected([far, near], [0, 0])


tokens = st.integers(0, 3)
trees_of = st.builds(
    ContextTree,
    st.lists(tokens, min_size=1, max_size=4).map(tuple),
    st.lists(st.lists(tokens, max_size=6).map(tuple), min_size=1, max_size=5).map(tuple),
)


@given(trees_of)
def test_every_token_sees_exactly_its_own_prefix(tree: ContextTree) -> None:
    layout = tree.layout
    index = np.arange(len(layout))
    seen = (index[None, :] <= index[:, None]) & (index[:, None] < layout.subtree_end[None, :])
    for continuation, path in zip(tree.continuations, layout.paths, strict=True):
        for depth, token in enumerate(path):
            row = layout.tokens[seen[token]].tolist()
            assert row == [*tree.context, *continuation[: depth + 1]]
            assert layout.positions[seen[token]].tolist() == list(range(len(row)))
    prefixes = {
        continuation[:n] for continuation in tree.continuations for n in range(1, 7) if n <= len(continuation)
    }
    assert len(layout) == len(tree.context) + len(prefixes)
    assert tree.fork == max(
        n
        for n in range(7)
        if len({c[:n] for c in tree.continuations}) == 1 and all(len(c) >= n for c in tree.continuations)
    )


@given(
    st.lists(trees_of, min_size=1, max_size=5),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 0.05, 1.0]),
)
def test_packing_loses_and_moves_no_token(
    trees: Trees, share: bool, from_fork: bool, attention_cost: float
) -> None:
    batch = pack(trees, share=share, from_fork=from_fork, attention_cost=attention_cost)
    wanted = expected(trees, [tree.fork if from_fork else 0 for tree in trees])
    assert pairs(batch) == wanted
    assert batch.lengths.tolist() == [len(each) for each in wanted]
    assert batch.filled.reshape(-1)[batch.predictor].all()


def test_weights_are_one_for_each_token_and_stay_with_their_continuation() -> None:
    weights = ((1.0, 0.0, 2.0), (0.5, 0.0))
    tree = ContextTree(CONTEXT, ((1, 2, 3), (1, 4)), weights)
    assert tree.lengths == [3.0, 0.5] and ContextTree(CONTEXT, tree.continuations).lengths == [3, 2]
    assert [part.weights for part in tree.split()] == [((1.0, 0.0, 2.0),), ((0.5, 0.0),)]
    with pytest.raises(ValueError, match="one number for each token"):
        ContextTree(CONTEXT, tree.continuations, ((1.0,), (0.5, 0.0)))
    with pytest.raises(ValueError, match="at least 0"):
        ContextTree(CONTEXT, tree.continuations, ((1.0, -1.0, 2.0), (0.5, 0.0)))


@pytest.mark.parametrize("share", [True, False])
def test_tokens_of_weight_0_need_no_prediction(share: bool) -> None:
    weighed = ContextTree(CONTEXT, ((1, 2, 3), (1, 4)), ((1.0, 0.0, 2.0), (0.5, 0.0)))
    batch = pack([weighed, ContextTree(CONTEXT, ((7, 8),))], share=share)
    assert batch.weight is not None and batch.weight.dtype == batch.lengths.dtype == np.float32
    assert batch.owner.tolist() == [0, 0, 1, 2, 2]
    assert batch.weight.tolist() == [1.0, 2.0, 0.5, 1.0, 1.0]
    assert batch.lengths.tolist() == [3.0, 0.5, 2.0]
    assert batch.target[batch.member].tolist() == [1, 3, 1, 7, 8]
    assert pack([ContextTree(CONTEXT, ((7, 8),))]).weight is None
