"""The workload of `train-speed`: bases with random weights, and pairs that share a part of their tokens.

The speed of training depends on shapes alone, so that the weights may be random and the words made up. This
module does not know what is trained on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from editloop.edits import Record
from editloop.errors import ConfigError
from editloop.offline.examples import SAMPLED, Completions, Example
from editloop.policy import ContextTree, Policy
from editloop.policy.progress_bars import downloads_alone

WORDS = 8190
SPREAD = 0.5
"""Standard deviation of the logarithm of a pair's length: most lengths are half to twice the median."""
DIFFERENCE = 0.1
"""Standard deviation of the logarithm of the ratio between the lengths of an edit and its response."""
CONTEXT_SHARE = 2 / 3
"""The context's part of what a pair shares; the rest is the common beginning of edit and response."""


@dataclass(frozen=True)
class Size:
    """The shape of a base, and the batches that suit it.

    Attributes:
        hidden: Width of the hidden states.
        inner: Width of the feed-forward layers.
        layers: Number of layers.
        heads: The number of attention heads, and of key-value heads.
        vocabulary: Rows of the embedding.
        tied: Whether the output embedding is tied to the input embedding.
        tokens: Median length of a sequence, context included.
        batch: Pairs of an optimiser step.
    """

    hidden: int
    inner: int
    layers: int
    heads: tuple[int, int]
    vocabulary: int
    tied: bool
    tokens: int
    batch: int


SIZES = {
    "10m": Size(320, 864, 6, (5, 5), WORDS + 2, True, tokens=240, batch=8),
    "0.5b": Size(896, 4864, 24, (14, 2), 151_936, True, tokens=512, batch=16),
    "1.5b": Size(1536, 8960, 28, (12, 2), 151_936, True, tokens=512, batch=8),
    "3b": Size(2048, 11_008, 36, (16, 2), 151_936, True, tokens=512, batch=4),
    "8b": Size(4096, 14_336, 32, (32, 8), 128_256, False, tokens=512, batch=4),
}
"""By number of parameters.

The first is for a CPU. The others have the shapes of Qwen2.5 and Llama 3.1, and batches that should fit into
80 GB without gradient checkpointing; this was calculated, not tried.
"""


FOLDER_TOKENS, FOLDER_BATCH = 240, 4
"""Median length of a sequence and pairs of an optimiser step, for a base that is a folder."""

LAMP_TOKENS, LAMP_SHARED = 320, 0.2
"""Median length of a sequence, and the shared fraction, of people's edits of paragraphs (LAMP)."""


def workload(name: str) -> tuple[int, int]:
    """Return the median length of a sequence in tokens, and the pairs of a step, for a size or a folder."""
    return (SIZES[name].tokens, SIZES[name].batch) if name in SIZES else (FOLDER_TOKENS, FOLDER_BATCH)


def build_base(name: str, device: str | torch.device, *, seed: int = 0) -> Any:
    """Return a Llama of a given size with random weights, or the model in a folder.

    It is in fp32 on a CPU and in bf16 elsewhere.

    Raises:
        ConfigError: There is no such size or folder, or the vocabulary is smaller than that of the rows.
    """
    dtype = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    if name in SIZES:
        return _random_base(SIZES[name], torch.device(device), dtype, seed)
    if not (Path(name) / "config.json").is_file():
        raise ConfigError("unknown size", seen=name, do=f"choose one of {', '.join(SIZES)}, or a folder")
    from transformers import AutoModelForCausalLM

    with downloads_alone():
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, attn_implementation="sdpa")
    if model.config.vocab_size < WORDS + 2:
        raise ConfigError(f"a base needs {WORDS + 2} tokens for the rows", seen=model.config.vocab_size)
    return model.to(device).eval()


def _random_base(size: Size, device: torch.device, dtype: torch.dtype, seed: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads[0],
        num_key_value_heads=size.heads[1],
        max_position_embeddings=4096,
        tie_word_embeddings=size.tied,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        dtype=dtype,
    )
    with torch.random.fork_rng(devices=[]), device:
        torch.manual_seed(seed)
        return LlamaForCausalLM._from_config(config, attn_implementation="sdpa", dtype=dtype).eval()


def build_tokenizer() -> Any:
    """Return a tokenizer with one token for each word: `w0`, `w1` and so on."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<eos>", *(f"w{i}" for i in range(WORDS))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def make_pairs(count: int, *, tokens: int, shared: float, seed: int = 0) -> list[Record]:
    """Return edited rows, each with a given share of its sequences' tokens in common.

    Args:
        count: Number of rows.
        tokens: Median tokens of a sequence, with context and end-of-turn token. Lengths are lognormal,
            clipped to a quarter and four times the median.
        shared: Tokens of the context and of what edit and response begin with, as a share of the mean
            length of the two sequences. At 0 the context is one token.
        seed: Seed of lengths and words. With the same seed the lengths are the same at every `shared`.
    """
    random = np.random.default_rng(seed)
    length = np.clip(tokens * np.exp(SPREAD * random.standard_normal(count)), tokens / 4, tokens * 4)
    ratio = np.exp(np.clip(DIFFERENCE * random.standard_normal(count), -0.2, 0.2) / 2)
    records = []
    for row, (edit, response) in enumerate(zip(length * ratio, length / ratio, strict=True)):
        common = max(1, round(shared * (edit + response) / 2))
        context = max(1, round(CONTEXT_SHARE * common))
        # One token less: the tokenizer adds the end-of-turn token. The first words after the common beginning
        # have to differ, or it would be longer than asked for.
        tails = [max(1, round(each) - common - 1) for each in (edit, response)]
        words = random.integers(0, WORDS - 1, common + sum(tails))
        both, first, second = np.split(words, [common, common + tails[0]])
        if first[0] == second[0]:
            second[0] += 1
        records.append(
            Record(
                id=f"row-{row}",
                context=_text(both[:context]),
                edit=_text(np.concatenate([both[context:], first])),
                response=_text(np.concatenate([both[context:], second])),
            )
        )
    return records


def made_up_completions(examples: Sequence[Example], count: int, *, seed: int = 0) -> list[Completions]:
    """Return each example's completions and `count` more of random words, each as long as the response.

    The added completions share nothing but the context. Samples of a real model share beginnings as well, so
    that this workload is the most expensive one for RL.
    """
    random = np.random.default_rng(seed)
    found = []
    for example in examples:
        own = example.tree.continuations
        length = len(own[1]) - 1
        sampled = [(*random.integers(2, WORDS, length).tolist(), 1) for _ in range(count)]
        tree = ContextTree(example.tree.context, (*own, *sampled))
        roles = {**example.completions.roles, SAMPLED: tuple(range(len(own), len(own) + count))}
        found.append(Completions(tree, roles))
    return found


def made_up_costs(
    policy: Policy, examples: Sequence[Example], completions: Sequence[Completions], *, seed: int = 0
) -> list[Example]:
    """Return examples as RL takes them, with sampled completions and made-up costs."""
    random = np.random.default_rng(seed)
    found = []
    log_probs = policy.log_probs([each.tree for each in completions])
    for example, each, scores in zip(examples, completions, log_probs, strict=True):
        costs = tuple(random.random(len(scores)).tolist())
        sampled = replace(each, reference=tuple(scores), cost=costs, spread=costs)
        own = example.completions.with_reference(scores[: len(example.completions)])
        found.append(replace(example, completions=own, sampled=sampled))
    return found


def count_tokens(record: Record, method: str) -> int:
    """Return the tokens of the separate sequences that a method learns from, with end-of-turn tokens."""
    assert isinstance(record.context, str) and record.edit is not None
    context, sides = len(record.context.split()), [record.edit, record.response][: 1 + (method != "sft")]
    return sum(context + len(side.split()) + 1 for side in sides)


def _text(words: Any) -> str:
    return " ".join(f"w{word}" for word in words)
