"""Features of continuations: what separate forwards give, whatever shares a forward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from editloop.policy import ContextTree, context_columns, load_base


@pytest.mark.parametrize("family", ["llama", "gpt2", "mamba"])
def test_features_are_those_of_a_separate_forward(base: Any, family: str) -> None:
    policy = load_base(base(family), device="cpu")
    encoder = policy.encoder
    trees = [
        encoder.tree("say it", ["abcd", "abxy", ""]),
        encoder.tree("and this", ["q"]),
    ]
    scores, features = policy.features([tree for tree in trees if tree is not None])
    assert [np.shape(each) for each in scores] == [(3,), (1,)]
    for tree, found, table in zip(trees, scores, features, strict=True):
        assert isinstance(tree, ContextTree)
        assert found == pytest.approx(policy.log_probs([tree])[0], abs=1e-5)
        for row, continuation in zip(table, tree.continuations, strict=True):
            ids = torch.tensor([[*tree.context, *continuation]])
            with torch.inference_mode():
                states = policy.model(input_ids=ids, output_hidden_states=True).hidden_states
            layers = [states[round(depth * (len(states) - 1))][0].numpy() for depth in (1 / 3, 2 / 3, 1)]
            start = len(tree.context) - 1
            expected = [layers[-1][start], *(layer[start:-1].mean(axis=0) for layer in layers)]
            tail = [
                found[tree.continuations.index(continuation)] / len(continuation),
                np.log(len(continuation)),
            ]
            np.testing.assert_allclose(row, np.concatenate([*expected, tail]), atol=2e-5)


def test_wide_states_are_projected_the_same_way_everywhere(
    base: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_base(base(), device="cpu")
    tree = policy.encoder.tree("say it", ["abcd", "abxy"])
    assert tree is not None
    wide = policy.features([tree])[1][0]
    width = context_columns(wide.shape[1])
    monkeypatch.setattr("editloop.policy.logprob.WIDTH", width // 2)
    narrow = policy.features([tree])[1][0]
    assert context_columns(narrow.shape[1]) == width // 2
    np.testing.assert_array_equal(narrow, policy.features([tree])[1][0])
    # What the two continuations have in common, the context, stays common.
    np.testing.assert_array_equal(narrow[0, : width // 2], narrow[1, : width // 2])
    assert not np.allclose(narrow[0], narrow[1])
