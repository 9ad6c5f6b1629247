"""Log-probabilities by trees: equal to the separate forwards, in value and in gradient, family by family."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from editloop.policy.logprob import _scored_by_logits, batch_log_probs, tree_mask
from editloop.policy.packing import pack
from editloop.policy.probe import probe_trees
from editloop.policy.tree import ContextTree
from tiny import VOCABULARY, tiny_model

SHARING = ["llama", "qwen3", "gpt2", "gemma", "gemma2", "gemma3_text", "mistral"]
PLAIN = ["mamba", "bloom", "rwkv", "mpt"]
MODELS: dict[str, Any] = {}


def model_of(family: str) -> Any:
    if family not in MODELS:
        MODELS[family] = tiny_model(family)
    return MODELS[family]


def separately(model: Any, trees: Sequence[ContextTree]) -> list[torch.Tensor]:
    """log-probability of each token of each continuation, by a forward for each continuation alone."""
    result = []
    for tree in trees:
        for continuation in tree.continuations:
            ids = torch.tensor([tree.context + continuation])
            log_probs = model(input_ids=ids).logits[0].float().log_softmax(-1)
            start = len(tree.context)
            picked = [log_probs[start - 1 + i, token] for i, token in enumerate(continuation)]
            result.append(torch.stack(picked) if picked else torch.zeros(0))
    return result


def sums(tokens: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([each.sum() for each in tokens])


def sequence(generator: torch.Generator, length: int) -> tuple[int, ...]:
    return tuple(torch.randint(3, VOCABULARY, (length,), generator=generator).tolist())


def some_trees() -> list[ContextTree]:
    """Long and short, forks within forks, equal and empty continuations; past the window of 6."""
    generator = torch.Generator().manual_seed(5)
    shared, inner = sequence(generator, 8), sequence(generator, 4)
    return [
        ContextTree(
            sequence(generator, 11),
            (
                shared + inner + sequence(generator, 9),
                shared + inner + sequence(generator, 2),
                shared + sequence(generator, 7),
                shared,
                (),
                shared,
            ),
        ),
        ContextTree(sequence(generator, 3), (sequence(generator, 5), sequence(generator, 9))),
        ContextTree(sequence(generator, 1), (sequence(generator, 2),)),
    ]


def test_the_mask_of_a_tree_by_hand() -> None:
    # Context a, then b with two children c and d: tokens a b c d.
    mask = tree_mask(torch.tensor([[4, 4, 3, 4]]))
    assert mask.shape == (1, 1, 4, 4)
    assert mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]


def test_log_probs_of_a_model_that_predicts_by_the_last_token_alone() -> None:
    """By hand: without layers the logits are a table, so each number can be looked up."""
    model = tiny_model("llama", num_hidden_layers=0)
    hidden = model.model.norm(model.model.embed_tokens.weight)
    table = model.lm_head(hidden).log_softmax(-1).detach()
    batch = pack([ContextTree((5,), ((6, 7), (6, 8), (9,)))])
    expected = [table[5, 6] + table[6, 7], table[5, 6] + table[6, 8], table[5, 9]]
    assert batch_log_probs(model, batch).tolist() == pytest.approx([float(x) for x in expected], abs=1e-5)


@pytest.mark.parametrize("family", SHARING)
def test_a_family_that_takes_the_mask_gives_equal_numbers(family: str) -> None:
    model, trees = model_of(family), some_trees()
    assert probe_trees(model)[0]
    with torch.no_grad():
        expected = separately(model, trees)
        packed = batch_log_probs(model, pack(trees))
        plain = batch_log_probs(model, pack(trees, share=False))
        from_fork = batch_log_probs(model, pack(trees, from_fork=True, attention_cost=0.5))
    assert len(pack(trees).input_ids) < len(trees)  # several trees in one row
    torch.testing.assert_close(packed, sums(expected), atol=1e-4, rtol=0)
    torch.testing.assert_close(plain, sums(expected), atol=1e-4, rtol=0)
    forks = [tree.fork for tree in trees for _ in tree.continuations]
    tails = sums([each[n:] for each, n in zip(expected, forks, strict=True)])
    torch.testing.assert_close(from_fork, tails, atol=1e-4, rtol=0)
    assert expected[0].std() > 0.5  # the tokens' numbers differ visibly, else nothing would be shown


def test_a_forward_in_another_thread_keeps_its_logits() -> None:
    """As when a policy is scored and sampled from at the same time."""
    model = model_of("llama")
    ids = torch.tensor([[5, 6, 7]])
    second = _scored_by_logits(model, torch.tensor([1]), torch.tensor([0]))
    with torch.no_grad(), ThreadPoolExecutor(1) as pool, second:
        other = pool.submit(torch.no_grad()(model), input_ids=ids).result().logits
        own = model(input_ids=ids).logits
    assert other.shape == (1, 3, VOCABULARY)
    torch.testing.assert_close(own[0, 0], other[0, 1])


@pytest.mark.parametrize("family", SHARING)
def test_every_single_token_has_its_own_number(family: str) -> None:
    """All prefixes of the continuations as continuations: a sum that hides two errors would show here."""
    model = model_of(family)
    prefixes = [
        ContextTree(tree.context, tuple(c[:n] for c in tree.continuations for n in range(len(c) + 1)))
        for tree in some_trees()
    ]
    with torch.no_grad():
        packed = batch_log_probs(model, pack(prefixes))
        tokens = separately(model, some_trees())
    cumulative = [each[:n].sum() for each in tokens for n in range(len(each) + 1)]
    torch.testing.assert_close(packed, torch.stack(cumulative), atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gemma3_text"])
def test_gradients_equal_those_of_the_separate_forwards(family: str) -> None:
    model, trees = model_of(family), some_trees()
    weights = torch.linspace(-1.0, 1.5, sum(len(tree.continuations) for tree in trees))

    def gradient(log_probs: torch.Tensor) -> dict[str, torch.Tensor]:
        model.zero_grad()
        (torch.sigmoid(log_probs / 50) * weights).sum().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    shared = gradient(batch_log_probs(model, pack(trees)))
    apart = gradient(sums(separately(model, trees)))
    assert shared.keys() == apart.keys()
    assert max(float(g.abs().max()) for g in apart.values()) > 1e-2
    for name, each in apart.items():
        torch.testing.assert_close(shared[name], each, atol=1e-5, rtol=1e-4, msg=name)
    model.zero_grad()


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "mistral"])
def test_the_sliding_window_is_one_of_positions_not_of_columns(family: str) -> None:
    """With a window so wide that it never cuts the numbers are others: so the window was in force."""
    generator = torch.Generator().manual_seed(1)
    tree = ContextTree(
        sequence(generator, 9), (sequence(generator, 12), sequence(generator, 12), sequence(generator, 10))
    )
    narrow, wide = model_of(family), tiny_model(family, sliding_window=64)
    with torch.no_grad():
        expected = sums(separately(narrow, [tree]))
        torch.testing.assert_close(batch_log_probs(narrow, pack([tree])), expected, atol=1e-4, rtol=0)
        assert (batch_log_probs(wide, pack([tree])) - expected).abs().max() > 0.1


@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral"])
def test_eager_attention_takes_the_same_tree(family: str) -> None:
    model = tiny_model(family, attention="eager")
    with torch.no_grad():
        packed = batch_log_probs(model, pack(some_trees()))
        torch.testing.assert_close(packed, sums(separately(model, some_trees())), atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore::UserWarning")  # kernels that these families would like to have
@pytest.mark.parametrize("family", PLAIN)
def test_a_family_that_cannot_is_detected_and_scored_as_plain_sequences(family: str) -> None:
    model, trees = model_of(family), some_trees()
    shares, why = probe_trees(model)
    assert not shares
    assert family in why
    with torch.no_grad():
        plain = batch_log_probs(model, pack(trees, share=shares))
        torch.testing.assert_close(plain, sums(separately(model, trees)), atol=1e-4, rtol=0)


def test_half_precision_is_probed_with_its_own_tolerance() -> None:
    assert probe_trees(tiny_model("llama").to(torch.bfloat16))[0]
    assert not probe_trees(tiny_model("mpt").to(torch.bfloat16))[0]


def test_a_batch_of_empty_continuations_is_zero() -> None:
    assert batch_log_probs(model_of("llama"), pack([ContextTree((4, 5), ((), ()))])).tolist() == [0.0, 0.0]


tokens = st.integers(3, 6)  # few, so that continuations share prefixes
random_trees = st.lists(
    st.builds(
        ContextTree,
        st.lists(tokens, min_size=1, max_size=5).map(tuple),
        st.lists(st.lists(tokens, max_size=9).map(tuple), min_size=1, max_size=4).map(tuple),
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("family", SHARING)
def test_random_trees_equal_the_separate_forwards(family: str) -> None:
    model = model_of(family)

    @settings(max_examples=12, deadline=None, derandomize=True)
    @given(random_trees, st.booleans())
    def check(trees: list[ContextTree], share: bool) -> None:
        with torch.no_grad():
            packed = batch_log_probs(model, pack(trees, share=share))
            torch.testing.assert_close(packed, sums(separately(model, trees)), atol=1e-4, rtol=0)

    check()
