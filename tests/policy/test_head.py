"""Log-probabilities from hidden states in chunks: by hand, in gradient, only where logits are linear."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from editloop.policy import Encoder, LoraSettings, Policy, attach_adapter
from editloop.policy import head as head_module
from editloop.policy.head import has_linear_head, target_log_probs, target_log_squares
from editloop.policy.logprob import batch_features, batch_log_probs
from editloop.policy.packing import pack
from editloop.policy.probe import probe_head
from editloop.policy.tree import ContextTree
from tiny import VOCABULARY, tiny_model, tiny_tokenizer

TREES = [
    ContextTree((4, 5, 6), (tuple(range(7, 40)), tuple(range(7, 20)), (9, 8))),
    ContextTree((3,), ((5, 6), ())),
]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three positions a chunk, so that small tests have several chunks, the last one shorter."""
    monkeypatch.setattr(head_module, "CHUNK_POSITIONS", 3)
    monkeypatch.setattr(head_module, "CHUNK_LOGITS", 1)


def test_log_probs_by_hand() -> None:
    # Logits (ln 1, ln 2, ln 5) and, with the second state twice as long, (ln 1, ln 4, ln 25).
    weight = torch.tensor([[0.0], [math.log(2)], [math.log(5)]])
    found = target_log_probs(torch.tensor([[1.0], [2.0]]), weight, None, torch.tensor([2, 1]))
    assert found.tolist() == pytest.approx([math.log(5 / 8), math.log(4 / 30)], abs=1e-6)
    biased = target_log_probs(
        torch.zeros(1, 1), weight, torch.tensor([0.0, 0.0, math.log(2)]), torch.tensor([2])
    )
    assert biased.tolist() == pytest.approx([math.log(2 / 4)], abs=1e-6)


@pytest.mark.usefixtures("small_chunks")
def test_sums_of_squares_by_hand_and_without_gradient() -> None:
    weight = torch.tensor([[0.0], [math.log(2)], [math.log(5)]])
    states = torch.tensor([[1.0], [2.0], [0.0], [1.0]], requires_grad=True)
    target = torch.tensor([2, 1, 0, 0])
    log_probs, log_squares = target_log_squares(states, weight, None, target)
    # Shares 1, 2, 5 of 8; 1, 4, 25 of 30; thirds; and the first again.
    expected = [30 / 64, 642 / 900, 1 / 3, 30 / 64]
    assert log_squares.exp().tolist() == pytest.approx(expected) and not log_squares.requires_grad
    assert torch.equal(log_probs, target_log_probs(states, weight, None, target))
    (slope,) = torch.autograd.grad(log_probs.sum(), states)
    (plain,) = torch.autograd.grad(target_log_probs(states, weight, None, target).sum(), states)
    assert torch.equal(slope, plain)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("with_bias", [False, True])
def test_the_gradients_are_those_of_finite_differences(with_bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    hidden, weight, bias = random(7, 4), random(11, 4), random(11) if with_bias else None
    target = torch.tensor([0, 3, 3, 10, 1, 0, 5])
    assert torch.autograd.gradcheck(
        lambda *inputs: target_log_probs(*inputs, target), (hidden, weight, bias), eps=1e-6, atol=1e-8
    )


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_give_what_the_whole_gives(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(10, 8, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(50, 8, generator=generator).to(dtype)
    target = torch.randint(0, 50, (10,), generator=generator)
    above = torch.randn(10, generator=generator)
    whole = -F.cross_entropy(F.linear(hidden, weight).float(), target, reduction="none")
    (by_whole,) = torch.autograd.grad(whole, hidden, above)
    chunked = target_log_probs(hidden, weight, None, target)
    (by_chunks,) = torch.autograd.grad(chunked, hidden, above)
    assert chunked.dtype == torch.float32
    torch.testing.assert_close(chunked, whole, atol=1e-5, rtol=0)
    # In bf16 both round a sum over the vocabulary to 8 bits.
    torch.testing.assert_close(by_chunks, by_whole, atol=1e-5 if dtype == torch.float32 else 0.05, rtol=0)


def test_very_unlikely_targets_neither_overflow_nor_vanish() -> None:
    hidden = torch.tensor([[1000.0]], requires_grad=True)
    found = target_log_probs(hidden, torch.tensor([[1.0], [-1.0]]), None, torch.tensor([1]))
    assert found.item() == -2000
    found.sum().backward()
    assert hidden.grad is not None and hidden.grad.item() == -2


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma", "qwen3"])
def test_log_probs_features_and_all_gradients_equal_those_from_logits(family: str) -> None:
    model = tiny_model(family)
    assert probe_head(model)

    def gradients(linear_head: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.zero_grad()
        found = batch_log_probs(model, pack(TREES), linear_head=linear_head)
        (found * torch.arange(1.0, 1 + len(found))).sum().backward()
        return found.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    (chunked, by_chunks), (whole, by_whole) = gradients(True), gradients(False)
    torch.testing.assert_close(chunked, whole, atol=1e-5, rtol=1e-6)
    assert by_chunks.keys() == by_whole.keys()
    for name, expected in by_whole.items():
        torch.testing.assert_close(by_chunks[name], expected, atol=1e-4, rtol=1e-4)
    filled = [ContextTree((4, 5), ((6, 7), (8,)))]
    for mine, expected in zip(
        batch_features(model, pack(filled), linear_head=True),
        batch_features(model, pack(filled)),
        strict=True,
    ):
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-6)


def test_no_tensor_of_positions_times_vocabulary_is_kept_for_the_backward() -> None:
    model = tiny_model("llama").requires_grad_(False)
    model.model.layers[0].requires_grad_(True)
    batch = pack(TREES)

    def largest(linear_head: bool) -> int:
        sizes = [0]

        def note(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            batch_log_probs(model, batch, linear_head=linear_head)
        return max(sizes)

    logits = len(batch.target) * VOCABULARY
    assert largest(False) == logits
    assert largest(True) < logits


def test_the_layers_share_one_mask_in_what_is_kept_for_the_backward() -> None:
    model, batch = tiny_model("llama", num_hidden_layers=3), pack(TREES)
    square, masks = (1, batch.input_ids.shape[1], batch.input_ids.shape[1]), set[int]()

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape[-3:] == square:
            masks.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        batch_log_probs(model, batch, linear_head=True).sum()
    assert len(masks) == 1


CAPPED: dict[str, dict[str, Any]] = {
    "gemma2": {"final_logit_softcapping": 30.0},
    "cohere": {"logit_scale": 0.0625},
    "granite": {"logits_scaling": 8.0},
}


@pytest.mark.parametrize("family", CAPPED)
def test_capped_and_scaled_logits_are_found_out(family: str) -> None:
    # Random weights give logits so small that a cap of 30 hardly changes them.
    model = tiny_model(family, **CAPPED[family])
    assert has_linear_head(model)
    assert not probe_head(model)


def test_a_model_that_scales_by_one_is_linear() -> None:
    assert probe_head(tiny_model("cohere", logit_scale=1.0))


def test_an_adapter_on_the_output_embedding_is_not_passed_over() -> None:
    model = tiny_model("llama", tie_word_embeddings=False)
    policy = Policy(model, Encoder(tiny_tokenizer(), 256), "tiny", "0", shares=True)
    policy.linear_head = probe_head(policy.model)
    assert policy.linear_head
    adapted = attach_adapter(policy, LoraSettings(rank=2, targets=("lm_head",)), seed=0)
    assert not has_linear_head(adapted.model)
    found = batch_log_probs(adapted.model, pack(TREES), linear_head=True)
    found.sum().backward()
    grads = [p.grad for name, p in adapted.model.named_parameters() if "lora_B" in name]
    assert len(grads) == 1 and grads[0] is not None and grads[0].abs().max() > 0
