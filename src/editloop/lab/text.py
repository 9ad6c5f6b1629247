"""Pretraining a small base from plain text, so that a log of real text can be worked on offline.

The base is a Llama of a few million parameters with a byte-level BPE tokenizer, trained on the texts packed
into blocks. It knows the words of its texts and little else, and stands in for a real base where none is
available. This module knows neither domains nor logs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from editloop.errors import ConfigError
from editloop.lab.pretraining import EOS, PAD, Batch, Progress, new_model, save_base, train
from editloop.lab.text_recipe import Documents, TextRecipe

__all__ = ["pretrain_text"]

HELD_OUT = 0.05
"""The share of the blocks that are held out for the perplexity."""


def pretrain_text(
    files: Sequence[Path | str],
    out: Path | str,
    recipe: TextRecipe | None = None,
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a small base from plain-text files, and write it to a folder in Hugging Face format.

    It is in one piece because it is one sequence: tokenizer, blocks, training, perplexity.

    Args:
        files: Text files in UTF-8.
        out: The folder; files of the same name there are replaced.
        recipe: The recipe; the default takes at most 12 minutes on 2 cores.
        progress: Called after each step.

    Returns:
        What is in the folder's `recipe.json`: the recipe, the sizes, the steps taken and the perplexity
        per token on the blocks that were held out.

    Raises:
        ConfigError: A file cannot be read as UTF-8 text, or there is too little text.
    """
    recipe = recipe or TextRecipe()
    documents = _read(files, recipe.documents)
    # The blocks that are held out come first, so they must not be the beginning of the first file.
    generator = random.Random(recipe.seed)
    generator.shuffle(documents)
    tokenizer = _train_tokenizer(documents, recipe)
    blocks = _pack(documents, tokenizer, recipe.block)
    n_held_out = max(1, round(HELD_OUT * len(blocks)))
    held_out, training = blocks[:n_held_out], blocks[n_held_out:]
    if len(training) < recipe.batch_size:
        raise ConfigError(
            "too little text to train on",
            seen=f"{len(blocks)} blocks of {recipe.block} tokens",
            do=f"give at least {recipe.batch_size + 1}",
        )
    model = new_model(
        tokenizer,
        hidden_size=recipe.hidden_size,
        layers=recipe.layers,
        heads=recipe.heads,
        positions=recipe.positions,
        seed=recipe.seed,
    )
    steps = train(
        model,
        _batches(training, recipe),
        steps=recipe.epochs * (len(training) // recipe.batch_size),
        learning_rate=recipe.learning_rate,
        minutes=recipe.minutes,
        progress=progress,
    )
    about = {
        "recipe": recipe.model_dump(),
        "documents": len(documents),
        "tokens": blocks.numel(),
        "parameters": model.num_parameters(),
        "steps": steps,
        "held_out_tokens": held_out.numel(),
        "held_out_perplexity": _perplexity(model, held_out),
    }
    save_base(model, tokenizer, Path(out), about)
    return about


def _read(files: Sequence[Path | str], documents: Documents) -> list[str]:
    texts: list[str] = []
    for file in files:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file} is not UTF-8 text", seen=str(error), do="convert it first") from error
        except OSError as error:
            raise ConfigError(f"{file} cannot be read", seen=error.strerror) from error
        texts += [part for part in (text.splitlines() if documents == "lines" else [text]) if part.strip()]
    if not texts:
        raise ConfigError("there is no text to train on", seen=[str(file) for file in files])
    return texts


def _train_tokenizer(documents: Sequence[str], recipe: TextRecipe) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # All bytes are in the alphabet, so that every text can be encoded and no unknown token is needed.
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
        model_max_length=recipe.positions,
    )


def _pack(documents: Sequence[str], tokenizer: PreTrainedTokenizerFast, block: int) -> torch.Tensor:
    """The tokens of all texts, each followed by the end token, as whole blocks: int64 [blocks, block]."""
    # The backend is called directly, because the wrapper warns of texts that are longer than the model's
    # positions.
    encodings = tokenizer.backend_tokenizer.encode_batch(list(documents))
    stream = [token for encoding in encodings for token in (*encoding.ids, tokenizer.eos_token_id)]
    whole = len(stream) // block * block
    return torch.tensor(stream[:whole], dtype=torch.int64).view(-1, block)


def _batches(blocks: torch.Tensor, recipe: TextRecipe) -> Iterator[Batch]:
    """Yield batches without end: every block once per epoch, except those of an incomplete last batch."""
    generator = torch.Generator().manual_seed(recipe.seed)  # leaves the global generator alone
    whole = len(blocks) // recipe.batch_size
    while True:
        for rows in torch.randperm(len(blocks), generator=generator)[: whole * recipe.batch_size].chunk(
            whole
        ):
            yield blocks[rows], blocks[rows]


@torch.no_grad()
def _perplexity(model: LlamaForCausalLM, blocks: torch.Tensor) -> float:
    """Return the exponential of the mean negative log-probability of a token, without each block's first."""
    # Blocks are equally long, so the mean of their means is the mean over all tokens.
    losses = [float(model(input_ids=row, labels=row).loss) for row in blocks.chunk(len(blocks))]
    return math.exp(sum(losses) / len(losses))
