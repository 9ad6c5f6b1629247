"""Pretraining small base models: the loop, and the recipe of a domain's base.

A domain's base is trained on drafts that mostly have the neutral style, but give every style some
probability. It distinguishes the kinds of contexts and does not know what is wanted for them
(`Domain.redraw`). It is shipped in the package with its recipe and a hash over the recipe and the domain's
tables.

This module knows neither users nor logs. Bases from text files are in `editloop.lab.text`.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from editloop.errors import ConfigError
from editloop.io import write_bytes, write_json
from editloop.lab.world import LabDomain

__all__ = [
    "Batch",
    "Progress",
    "Recipe",
    "build_tokenizer",
    "new_model",
    "pretrain",
    "recipe_hash",
    "save_base",
    "shipped_recipe",
    "train",
]

PAD, EOS, UNK, SEP = "<pad>", "<eos>", "<unk>", "<sep>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message.content }}{{ eos_token if message.role == 'assistant' else '" + SEP + "' }}"
    "{% endfor %}"
)
"""A turn is its text and a mark: the separator after the user's turn, the end token after the assistant's."""

Batch = tuple[torch.Tensor, torch.Tensor]
"""Token ids and labels, both [rows, tokens]; a label of -100 is not learned."""

Progress = Callable[[int, int, float], None]
"""Called with the steps done, all steps, and the loss."""


@dataclass(frozen=True)
class Recipe:
    """How a domain's base model is made.

    Attributes:
        diversity: The probability that an attribute is redrawn from all its values.
        awareness: The probability that it has the value of another kind's style (`Domain.redraw`).
        hidden_size: The width of the model.
        layers: The number of its layers.
        heads: The attention heads of a layer.
        steps: The optimiser steps.
        batch_size: The drafts in a step.
        learning_rate: The peak of the schedule (linear warm-up, then cosine to zero).
        seed: The seed of the drafts and of the weights.
    """

    diversity: float = 0.45
    awareness: float = 0.25
    hidden_size: int = 128
    layers: int = 3
    heads: int = 4
    steps: int = 1500
    batch_size: int = 48
    learning_rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("diversity", "awareness"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a probability", seen=getattr(self, name))
        if self.diversity + self.awareness > 1:
            raise ConfigError(
                "diversity and awareness together exceed 1", seen=(self.diversity, self.awareness)
            )
        for name in ("hidden_size", "layers", "heads", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1", seen=getattr(self, name))


def shipped_recipe(domain: LabDomain) -> Recipe:
    """Return the recipe of a domain's base."""
    return Recipe(**domain.pretraining)


def recipe_hash(domain: LabDomain, recipe: Recipe) -> str:
    """Return a hash over the recipe and the domain's tables; equal hashes mean equal data and models."""
    text = json.dumps([domain.fingerprint, asdict(recipe)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def build_tokenizer(domain: LabDomain) -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer of the domain's texts, which decodes exactly what was encoded."""
    # A piece has its space with it (`Domain.piece`), so that the pieces are joined without any. The
    # library's own clean-up of spaces would change them.
    vocabulary = {token: i for i, token in enumerate([PAD, EOS, UNK, SEP, *domain.pieces])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(domain.piece), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        additional_special_tokens=[SEP],
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def new_model(
    tokenizer: PreTrainedTokenizerFast,
    *,
    hidden_size: int,
    layers: int,
    heads: int,
    positions: int,
    seed: int,
) -> LlamaForCausalLM:
    """Return a Llama with tied embeddings and random weights, in fp32 on the CPU."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=8 * hidden_size // 3,  # as many weights in three matrices as two of 4 h have
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    # The library draws weights from the global generator; afterwards it is as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def train(
    model: LlamaForCausalLM,
    batches: Iterator[Batch],
    *,
    steps: int,
    learning_rate: float,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> int:
    """Train a model in place with AdamW on the mean loss of a batch's labels.

    The schedule follows the budget that is spent faster, steps or minutes, so that training ends with a
    learning rate of zero either way.

    Returns:
        The number of steps that were taken.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    model.train()
    start, step, spent = time.monotonic(), 0, 0.0
    while spent < 1:
        ids, labels = next(batches)
        warm_up = min(1.0, (step + 1) / (0.05 * steps))
        optimizer.param_groups[0]["lr"] = learning_rate * warm_up * (1 + math.cos(math.pi * spent)) / 2
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        # `spent` is the share of the budget, and the schedule's only clock.
        spent = step / steps
        if minutes is not None:
            spent = max(spent, (time.monotonic() - start) / (60 * minutes))
        if progress is not None:
            progress(step, steps, float(loss.detach()))
    model.eval()
    return step


def pretrain(
    domain: LabDomain, out: Path | str, recipe: Recipe | None = None, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Train a domain's base model by its recipe, and write it to a folder in Hugging Face format.

    Args:
        domain: The domain whose drafts are learned.
        out: The folder; files of the same name there are replaced.
        recipe: The recipe; by default that of the shipped base (5 to 10 minutes on 2 cores).
        progress: Called after each step.

    Returns:
        What is in the folder's `recipe.json`: the recipe, its hash, the number of parameters.
    """
    recipe = recipe or shipped_recipe(domain)
    tokenizer = build_tokenizer(domain)
    model = new_model(
        tokenizer,
        hidden_size=recipe.hidden_size,
        layers=recipe.layers,
        heads=recipe.heads,
        positions=256,
        seed=recipe.seed,
    )
    train(
        model,
        _drafts(domain, recipe, tokenizer),
        steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        progress=progress,
    )
    about = {
        "domain": domain.name,
        "recipe": asdict(recipe),
        "hash": recipe_hash(domain, recipe),
        "parameters": model.num_parameters(),
    }
    save_base(model, tokenizer, Path(out), about)
    return about


def save_base(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path, about: dict[str, Any]
) -> None:
    """Write a base, and `about` as its recipe.json; each file is written whole or not at all."""
    model.generation_config = GenerationConfig(
        do_sample=True, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id
    )
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        # File by file, because `out` may hold other files, which `atomic_folder` would remove.
        for file in sorted(Path(folder).iterdir()):
            write_bytes(out / file.name, file.read_bytes())
    write_json(out / "recipe.json", about)


def _drafts(domain: LabDomain, recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Iterator[Batch]:
    """Yield batches without end, of conversations of a context and a draft; only the draft is learned."""
    contexts = domain.contexts(recipe.seed, stream="pretrain")
    generator = random.Random(recipe.seed)
    while True:
        rows, labels = [], []
        for _ in range(recipe.batch_size):
            context = next(contexts)
            draft = domain.redraw(
                domain.read(context), recipe.diversity, generator, awareness=recipe.awareness
            )
            # Context and draft are tokenised apart, as `Encoder` does when a policy is trained or sampled.
            prompt = tokenizer(context + SEP)["input_ids"]
            row = prompt + tokenizer(domain.render(draft) + EOS)["input_ids"]
            rows.append(torch.tensor(row))
            # The model shifts labels itself. Contexts are not learned: their words are drawn at random.
            labels.append(torch.tensor([-100] * len(prompt) + row[len(prompt) :]))
        yield (
            pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id),
            pad_sequence(labels, batch_first=True, padding_value=-100),
        )
