"""Sample responses from a policy in batches, and trim the repetition loops that some of them end in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch

from editloop.edits import ContextLike, as_contexts
from editloop.errors import ModelError
from editloop.policy.drawing import NOT_FINITE, inverted, not_finite_error
from editloop.policy.encode import Encoder
from editloop.policy.generation import GenerationSettings
from editloop.policy.memory import free_memory
from editloop.policy.mode import core_of, evaluating
from editloop.policy.prefill import shared_prefill

__all__ = [
    "InversionSampler",
    "Sample",
    "default_batch",
    "sample",
    "trim_loops",
    "uniform_numbers",
    "without_shipped_settings",
]

WHOLE = GenerationSettings()
"""The whole distribution at temperature 1."""

USUAL_BATCH, GPU_BATCH = 32, 256
"""Contexts in a forward, and at most on a GPU. A step takes a GPU hardly longer for more rows."""

MEMORY_SHARE = 0.25
"""The part of the free memory of a GPU that a batch may fill."""

LOOP_LENGTH = 200
"""Shortest loop that is trimmed, in characters, as in the paper."""

LOOP_PERIOD = 40
"""Longest unit whose repetition counts as a loop, in characters."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A sampled response.

    Attributes:
        text: The response, with repetition loops trimmed.
        tokens: Number of sampled tokens, the end token included.
        finished: Whether the policy ended its turn within the limit.
        trimmed: Number of characters that were trimmed.
    """

    text: str
    tokens: int
    finished: bool
    trimmed: int


def sample(
    model: Any,
    encoder: Encoder,
    contexts: Sequence[ContextLike],
    *,
    seed: int,
    settings: GenerationSettings = WHOLE,
    max_new_tokens: int = 256,
    batch_size: int | None = None,
    places: Sequence[tuple[int, ...]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Sample]:
    """Sample one response for each context.

    To rounding, a response depends only on the model, the context, its place among the contexts, and the
    seed. The global random state is neither read nor changed, and the model is left as it was, so several
    threads may sample from one model. Equal prompts in a batch are read once. Long because a batch is
    followed from its prompts to its responses in one place.

    Args:
        model: A causal LM.
        encoder: The model's encoder.
        contexts: Texts, or chats, whose messages may be plain dicts.
        seed: Any integer.
        settings: How tokens are drawn; by default from the whole distribution.
        max_new_tokens: Limit of a response in tokens, the end token included. A long context may leave room
            for fewer.
        batch_size: Contexts in a forward; contexts of similar length go together. By default `default_batch`.
        places: The place of each context, which names its stream of random numbers: numbers of 0 or more. By
            default the i-th has (i,). With the places of a longer list, some of its contexts alone get the
            responses that they have in it.
        progress: Called with the number of responses sampled so far.

    Raises:
        ConfigError: `contexts` is a single text, or a context is neither a text nor a chat.
        ModelError: A context leaves no room for a response within the encoder's `max_length`, or the model's
            probabilities are not finite.
    """
    from transformers import GenerationConfig, LogitsProcessorList

    prompts = [encoder.prompt(context) for context in as_contexts(contexts)]
    longest = max((len(prompt) for prompt in prompts), default=0)
    if longest >= encoder.max_length:
        raise ModelError(
            f"a context of {longest} tokens leaves no room for a response",
            do=f"shorten it, or raise --max-length above {encoder.max_length}",
        )

    def limit(i: int) -> int:
        return min(max_new_tokens, encoder.max_length - len(prompts[i]))

    at = places or [(i,) for i in range(len(prompts))]
    # Equal prompts come side by side, so that a batch has to read them only once.
    by_length = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), prompts[i]))
    done = 0
    samples: list[Sample | None] = [None] * len(prompts)
    device = next(model.parameters()).device
    batch_size = batch_size or default_batch(model, min(longest + max_new_tokens, encoder.max_length))
    with evaluating(model), torch.inference_mode():
        for members in _batches(by_length, limit, batch_size):
            width = max(len(prompts[i]) for i in members)
            ids = torch.full((len(members), width), encoder.pad, dtype=torch.long)
            for row, i in enumerate(members):
                ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
            # Padding is on the left, so that all rows write their next token in the same column. `generate`
            # counts positions along this mask, so padding shifts none of them.
            seen = torch.arange(width) >= width - torch.tensor([len(prompts[i]) for i in members])[:, None]
            room = limit(members[0])
            config = GenerationConfig(
                do_sample=False,  # the processor leaves one token to choose; without it, decoding is greedy
                max_new_tokens=room,
                eos_token_id=list(encoder.ends),
                pad_token_id=encoder.pad,
                bos_token_id=encoder.tokenizer.bos_token_id,
                repetition_penalty=settings.repetition_penalty,
            )
            # A stream of random numbers for each context, spawned from the seed and the context's place: a
            # response uses the same numbers in whichever batch it is sampled, and beside any other thread.
            # NumPy takes no negative seed, hence the modulus.
            streams = [np.random.SeedSequence(seed % 2**128, spawn_key=at[i]) for i in members]
            uniform = uniform_numbers(streams, room)
            processors = [InversionSampler(uniform, settings, width)] if settings.temperature > 0 else []
            view, ids, mask = without_shipped_settings(model), ids.to(device), seen.long().to(device)
            outputs = view.generate(
                ids,
                attention_mask=mask,
                generation_config=config,
                logits_processor=LogitsProcessorList(processors),
                **shared_prefill(view, ids, mask),
            )
            for i, row_ids in zip(members, outputs[:, width:].tolist(), strict=True):
                samples[i] = _sample_of(row_ids, encoder)
            done += len(members)
            if progress is not None:
                progress(done)
    return [s for s in samples if s is not None]


def default_batch(model: Any, length: int) -> int:
    """How many responses are sampled at a time: 32; on a GPU up to 256, as its memory allows.

    A token takes its keys and values in all layers, and while contexts are read, three times the inner width
    of one layer.

    Args:
        model: A causal LM.
        length: The most tokens of a context and its response together.
    """
    weights = next(model.parameters())
    if weights.device.type != "cuda":
        return USUAL_BATCH
    config = core_of(model).config.get_text_config()
    layers, hidden, heads = (
        getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size", "num_attention_heads")
    )
    if not (layers and hidden and heads):  # not a transformer, such as Mamba
        return USUAL_BATCH
    width = getattr(config, "head_dim", None) or hidden // heads
    cached = 2 * layers * width * (getattr(config, "num_key_value_heads", None) or heads)
    read = 3 * (getattr(config, "intermediate_size", None) or 4 * hidden)
    row = (cached + read) * weights.element_size() * max(1, length)
    bearable = int(MEMORY_SHARE * free_memory(weights.device)[0] / row)
    return min(max(USUAL_BATCH, bearable), GPU_BATCH)


def uniform_numbers(streams: Sequence[np.random.SeedSequence], steps: int) -> torch.Tensor:
    """Uniform numbers in [0, 1) for each step of each stream, whatever streams stand beside it [n, steps]."""
    # A stream's first numbers do not depend on `steps`, so a lower limit cuts a response without changing it.
    return torch.from_numpy(np.stack([np.random.default_rng(each).random(steps) for each in streams]))


class InversionSampler:
    """A logits processor that samples by inversion: the first token whose cumulative probability exceeds u.

    Args:
        uniform: u of every row and step [n, steps].
        settings: Temperature, above 0, top-k and top-p.
        width: Length of the prompts in tokens.
    """

    def __init__(self, uniform: torch.Tensor, settings: GenerationSettings, width: int) -> None:
        self.uniform, self.settings, self.width = uniform, settings, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores that are 0 for the sampled token of each row and minus infinity elsewhere [n, vocabulary].

        Raises:
            ModelError: The model's probabilities are not finite.
        """
        step = input_ids.shape[1] - self.width
        tokens = inverted(scores, self.uniform[:, step], self.settings)
        if bool((tokens == NOT_FINITE).any()):  # unchecked, it would sample some token without a word
            raise not_finite_error()
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)


def _batches(items: Iterable[int], limit: Callable[[int], int], size: int) -> Iterator[list[int]]:
    """Yield items in batches of one limit each, so that a long prompt does not shorten another's response."""
    for _, alike in groupby(items, key=limit):
        members = list(alike)
        for start in range(0, len(members), size):
            yield members[start : start + size]


def without_shipped_settings(model: Any) -> Any:
    """The model without the generation settings that it was shipped with (top-p, repetition penalty ...).

    Args:
        model: A `transformers` model, or its PEFT wrapper.

    Returns:
        A view that shares all modules and weights with the model, which itself is not changed.
    """
    from transformers import GenerationConfig

    # `generate` fills in whatever its argument leaves open from the model's own settings. They cannot be
    # replaced on the model itself, because another thread may be reading them; hence a shallow copy. Copies
    # share the table of their modules, so each wrapper around the core gets a table of its own.
    core = core_of(model)

    def view_of(module: Any) -> Any:
        view = copy(module)
        if module is core:
            view.generation_config = GenerationConfig()
        else:
            inner = "base_model" if "base_model" in module._modules else "model"
            view._modules = {**module._modules, inner: view_of(module._modules[inner])}
        return view

    return view_of(model)


def _sample_of(ids: list[int], encoder: Encoder) -> Sample:
    # A row that ended before the others is filled up with padding, which comes after its end token.
    end = next((place for place, token in enumerate(ids) if token in encoder.ends), None)
    finished = end is not None
    ids = ids[:end]
    text = encoder.decode(ids)
    trimmed = trim_loops(text)
    return Sample(trimmed, len(ids) + finished, finished, len(text) - len(trimmed))


def trim_loops(text: str) -> str:
    """The text with every repetition loop of 200 or more characters reduced to its first unit.

    A loop is a unit of up to 40 characters repeated back to back.
    """
    # A stretch that repeats with period p is one where each character equals the one p before it. Comparing
    # the text with itself shifted finds all of them at once, where a regular expression with a
    # back-reference backtracks.
    for period in range(1, LOOP_PERIOD + 1):
        if len(text) < LOOP_LENGTH:
            break
        # UTF-32, so that an index is a character; half a surrogate pair, which a model may write, passes.
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        same = codes[period:] == codes[:-period]
        edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
        kept, done = [], 0
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            # text[start : stop + period] repeats one unit. Its first copy is kept, and so is an incomplete
            # last one. It may share its first characters with the stretch before it, hence `max`.
            if stop - start + period >= LOOP_LENGTH:
                kept.append(text[done : max(done, start + period)])
                done = start + period + (stop - start) // period * period
        text = "".join(kept) + text[done:]
    return text
