"""Equal prompts of a batch are read once, and what is drawn after them is the same; places name streams."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from editloop.policy import LoraSettings, attach_adapter, load_base, sampling

CONTEXTS = ["Dear Ann, thank you", "bc", "What now?"]
THRICE = [context for context in CONTEXTS for _ in range(3)]
PLACES = [(i, k) for i in range(3) for k in range(3)]


@pytest.mark.parametrize(
    ("family", "saves"),
    [
        ("llama", True),
        ("gpt2", True),
        ("gemma3_text", True),  # layers with a sliding window
        ("bloom", True),
        ("mpt", True),
        ("mamba", False),  # no keys and values
        ("rwkv", False),
    ],
)
def test_the_same_responses_from_fewer_tokens(
    base: Any, family: str, saves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_base(base(family), device="cpu")
    read: list[int] = []
    embedding = policy.model.get_input_embeddings()
    embedding.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].numel()))
    together = policy.sample(THRICE, seed=2, places=PLACES, max_new_tokens=8)
    shared = sum(read)
    read.clear()
    monkeypatch.setattr(sampling, "shared_prefill", lambda *_: {})
    assert policy.sample(THRICE, seed=2, places=PLACES, max_new_tokens=8) == together
    width = max(len(policy.encoder.prompt(context)) for context in CONTEXTS)
    # Of nine rows of all tokens but the last, three are left.
    assert sum(read) - shared == (6 * (width - 1) if saves else 0)


def test_an_adapter_reads_prompts_once_too(base: Any) -> None:
    policy = attach_adapter(load_base(base(chat=True), device="cpu"), LoraSettings(rank=2), seed=0)
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.2)
    alone = [policy.sample([context], seed=2, places=[at], max_new_tokens=8) for context, at in drawn()]
    together = policy.sample(THRICE, seed=2, places=PLACES, max_new_tokens=8)
    assert [[each] for each in together] == alone
    with policy.reference():
        assert policy.sample(THRICE, seed=2, places=PLACES, max_new_tokens=8) != together


def test_a_prompt_with_the_padding_token_is_not_a_shorter_prompt(base: Any) -> None:
    policy = load_base(base(), device="cpu")
    contexts = ["ab", "<pad>ab", "ab", "<pad>ab"]
    assert policy.encoder.prompt("<pad>ab") == (policy.encoder.pad, *policy.encoder.prompt("ab"))
    together = policy.sample(contexts, seed=1, max_new_tokens=8)
    alone = [policy.sample([c], seed=1, places=[(i,)], max_new_tokens=8)[0] for i, c in enumerate(contexts)]
    assert together == alone


def test_with_their_places_some_of_the_contexts_have_the_responses_of_all(base: Any) -> None:
    policy = load_base(base(), device="cpu")
    every = policy.sample(THRICE, seed=5, max_new_tokens=8)
    some = [7, 2, 4]
    places = [(i,) for i in some]
    assert policy.sample([THRICE[i] for i in some], seed=5, places=places, max_new_tokens=8) == [
        every[i] for i in some
    ]
    assert len({each.text for each in every[:3]}) == 3  # equal contexts in other places are other samples


def drawn() -> list[tuple[str, tuple[int, int]]]:
    return list(zip(THRICE, PLACES, strict=True))
