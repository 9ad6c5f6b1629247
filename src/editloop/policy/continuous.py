"""Generate for many rows at once, where rows join and leave at every token (continuous batching).

A step draws one token for each running row, and reads a chunk of the prompts of rows that have just come. A
row's tokens follow from its own prompt, adapter, settings and random stream; to rounding, they do not depend
on the rows beside it. Whoever adds a row takes its tokens, and ends it by setting `done`: this module knows
neither texts nor end tokens.

`transformers` has continuous batching of its own (`ContinuousBatchingManager`). It packs the tokens of all
requests into one row, and a LoRA adapter is chosen by row, so it cannot serve several adapters.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache

from editloop.policy.drawing import draw_tokens, token_log_probs
from editloop.policy.generation import GenerationSettings
from editloop.policy.mode import core_of
from editloop.policy.probe import TOLERANCE, has_other_layers
from editloop.policy.row_adapters import RowAdapters
from editloop.policy.row_cache import RowCache

__all__ = ["ContinuousBatch", "Row", "SeparateRows", "takes_row_cache"]

MAX_ROWS = 16
"""Rows at once. On a CPU more of them hardly raise the throughput, and all become slower."""

MAX_CACHED = 16_384
"""Columns times rows of the cache that admitted rows may need. A column of SmolLM2-135M takes 46 kB."""

CHUNK = 128
"""Tokens of prompts that are read between two tokens of the running rows."""


@dataclass(eq=False, kw_only=True)  # two rows with equal content are two rows
class Row:
    """A response that is being generated.

    Attributes:
        prompt: The token ids of the prompt.
        max_tokens: Maximum number of tokens that it will get, for which room is kept.
        settings: How its tokens are drawn.
        stream: The random stream by which its tokens are drawn.
        adapter: The name of its adapter; None for the model itself.
        ids: The tokens drawn so far.
        logprob: Their log-probability by the model itself, in nats (`token_log_probs`).
        done: Why it ended; None before that. Any thread may set it, and the row is gone from the next step.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    settings: GenerationSettings
    stream: np.random.SeedSequence
    adapter: str | None = None
    ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    done: str | None = None

    def __post_init__(self) -> None:
        # The numbers are those that `uniform_numbers` gives: one for each token, whatever else is drawn.
        self._uniform = np.random.default_rng(self.stream)

    def uniform(self) -> float:
        """The number in [0, 1) by which the next token is drawn."""
        return float(self._uniform.random())

    def __len__(self) -> int:
        """The number of tokens so far, prompt included."""
        return len(self.prompt) + len(self.ids)


class _Batch:
    """Rows that wait, and those that were admitted; see `ContinuousBatch` and `SeparateRows`."""

    def __init__(self, model: Any, adapters: RowAdapters | None = None) -> None:
        self._model, self._adapters = model, adapters
        self._device = next(model.parameters()).device
        self._takes = inspect.signature(core_of(model).forward).parameters.keys()
        self.waiting: deque[Row] = deque()
        self.admitted: list[Row] = []

    def add(self, row: Row) -> None:
        """Add a row, which is admitted at a next step."""
        self.waiting.append(row)

    @property
    def rows(self) -> list[Row]:
        """All rows that have not ended."""
        return [row for row in (*self.admitted, *self.waiting) if row.done is None]

    def _admit(self) -> list[Row]:
        """Forget the rows that have ended, and return the oldest of those that wait, as many as have room."""
        self.admitted = [row for row in self.admitted if row.done is None]
        fresh: list[Row] = []
        while self.waiting:
            row = self.waiting[0]
            if row.done is None:
                longest = max(len(each.prompt) + each.max_tokens for each in (*self.admitted, row))
                count = len(self.admitted) + 1
                # Not even a short row behind it passes one that has no room, which could wait forever.
                if count > 1 and (count > MAX_ROWS or count * longest > MAX_CACHED):
                    break
                self.admitted.append(row)
                fresh.append(row)
            self.waiting.popleft()
        return fresh

    def _forward(self, rows: Sequence[Row], ids: torch.Tensor, **arguments: Any) -> Any:
        """The output of the model, with the logits of the last column alone if the model can do that."""
        if "logits_to_keep" in self._takes:
            arguments["logits_to_keep"] = 1
        if self._adapters is None:
            return self._model(input_ids=ids.to(self._device), **arguments)
        return self._adapters.forward([row.adapter for row in rows], ids.to(self._device), **arguments)

    def _draw(self, rows: Sequence[Row], output: Any) -> list[tuple[Row, int]]:
        """Draw the next token of rows, and append it to each."""
        scores = output.logits[:, -1].float()
        tokens = draw_tokens(
            scores,
            [row.settings for row in rows],
            [row.uniform() for row in rows],
            [(*row.prompt, *row.ids) if row.settings.repetition_penalty != 1 else () for row in rows],
        )
        for row, token, log_prob in zip(rows, tokens, token_log_probs(scores, tokens), strict=True):
            row.ids.append(token)
            row.logprob += log_prob
        return [pair for pair in zip(rows, tokens, strict=True) if pair[0].done is None]


@dataclass
class _Reading:
    """Newcomers whose prompts are being read: several short ones in one chunk, or a long one in several."""

    rows: list[Row]
    cache: RowCache = field(default_factory=RowCache)
    done: int = 0


class ContinuousBatch(_Batch):
    """Rows that share a cache, in which they come and go.

    Args:
        model: A causal LM for which `takes_row_cache` holds, in evaluation mode.
        adapters: The adapters that rows may name, on the same model.
    """

    def __init__(self, model: Any, adapters: RowAdapters | None = None) -> None:
        super().__init__(model, adapters)
        self._running: list[Row] = []
        self._cache = RowCache()
        self._reading: deque[_Reading] = deque()
        self._read: list[_Reading] = []

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, int]]:
        """One token of each running row, and the first token of those whose prompt has been read.

        Returns:
            Rows with their new tokens, which are in `ids` already; `NOT_FINITE` is no token, and such a row
            has to be ended.
        """
        self._reading += _grouped(self._admit())
        self._regroup()
        if self._adapters is not None:
            self._adapters.hold({row.adapter for row in self.admitted})
        drawn = []
        if self._running:
            ids = torch.tensor([row.ids[-1:] for row in self._running])
            lengths = [len(row) for row in self._running]
            drawn += self._draw(
                self._running, self._run_columns(self._running, ids, lengths, max(lengths), self._cache)
            )
        if self._reading:
            drawn += self._read_chunk(self._reading.popleft())
        return drawn

    def _regroup(self) -> None:
        """Take rows that have ended out of the cache, and those whose prompts have been read into it."""
        if not self._read and all(row.done is None for row in self._running):
            return
        groups = [(self._running, self._cache), *((each.rows, each.cache) for each in self._read)]
        kept = [
            (cache, indices)
            for rows, cache in groups
            if (indices := [i for i, row in enumerate(rows) if row.done is None])
        ]
        self._running = [row for rows, _ in groups for row in rows if row.done is None]
        self._read = []
        # The last token of each row has been drawn, and is not in the cache yet.
        width = max((len(row) for row in self._running), default=1) - 1
        self._cache = RowCache.of(kept, width) if kept else RowCache()

    def _read_chunk(self, reading: _Reading) -> list[tuple[Row, int]]:
        """Read the next tokens of prompts; after the last of them, draw the first tokens of the responses."""
        rows = reading.rows
        if all(row.done is not None for row in rows):
            return []
        lengths = [len(row.prompt) for row in rows]
        width = max(lengths)
        start, reading.done = reading.done, min(reading.done + CHUNK, width)
        padded = [(0,) * (width - len(row.prompt)) + row.prompt for row in rows]
        ids = torch.tensor([each[start : reading.done] for each in padded])
        output = self._run_columns(rows, ids, lengths, width, reading.cache, reading.done)
        if reading.done < width:
            self._reading.append(reading)  # behind the others, so that a long prompt delays none of them
            return []
        self._read.append(reading)
        return self._draw(rows, output)

    def _run_columns(
        self,
        rows: Sequence[Row],
        ids: torch.Tensor,
        lengths: Sequence[int],
        width: int,
        cache: RowCache,
        end: int | None = None,
    ) -> Any:
        """The model's output for the columns before `end`, by default the last ones, of rows in a width."""
        seen = torch.arange(width)[:end] >= width - torch.tensor(lengths)[:, None]
        arguments: dict[str, Any] = {"attention_mask": seen.long().to(self._device)}
        if "position_ids" in self._takes:
            positions = (seen.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            arguments["position_ids"] = positions.to(self._device)
        return self._forward(rows, ids, past_key_values=cache, use_cache=True, **arguments)


class SeparateRows(_Batch):
    """Rows that are computed one by one, for models that cannot take rows into a cache in mid-course.

    A row has a cache of its own if the model returns one; otherwise all its tokens are read at every step.
    """

    def __init__(self, model: Any, adapters: RowAdapters | None = None) -> None:
        super().__init__(model, adapters)
        self._caches: dict[Row, Any] = {}

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, int]]:
        """See `ContinuousBatch.step`; a whole prompt is read at once."""
        self._admit()
        self._caches = {row: cache for row, cache in self._caches.items() if row.done is None}
        drawn = []
        for row in self.admitted:
            if self._adapters is not None:
                self._adapters.hold({row.adapter})
            cache = self._caches.get(row)
            ids = row.ids[-1:] if cache is not None else [*row.prompt, *row.ids]
            cached = {"past_key_values": cache} if cache is not None else {}
            output = self._forward([row], torch.tensor([ids]), use_cache=True, **cached)
            found = getattr(output, "past_key_values", None)
            if isinstance(found, Cache):
                self._caches[row] = found
            drawn += self._draw([row], output)
        return drawn


def _grouped(rows: Sequence[Row]) -> list[_Reading]:
    """Newcomers in groups that are read together: with the padding, a chunk at most unless it is one row."""
    groups: list[_Reading] = []
    for row in sorted(rows, key=lambda row: len(row.prompt)):  # like lengths need little padding
        if groups and (len(groups[-1].rows) + 1) * len(row.prompt) <= CHUNK:
            groups[-1].rows.append(row)
        else:
            groups.append(_Reading([row]))
    return groups


@torch.inference_mode()
def takes_row_cache(model: Any) -> tuple[bool, str]:
    """Find out whether rows may join in a `RowCache` of a model, by trying it with two random rows.

    Returns:
        Whether they may, and the reason.
    """
    if reason := has_other_layers(model):
        return False, reason
    vocabulary = int(model.config.get_text_config().vocab_size)
    numbers = torch.randint(0, vocabulary, (20,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [
        Row(prompt=tuple(ids), max_tokens=1, settings=GenerationSettings(), stream=np.random.SeedSequence(0))
        for ids in (numbers[:12], numbers[12:19])
    ]
    batch = ContinuousBatch(model)
    try:
        read = [_Reading([row]) for row in rows]
        for each in read:
            batch._read_chunk(each)
        batch._regroup()
        ids = torch.tensor([row.ids for row in rows])
        joined = batch._run_columns(rows, ids, [13, 8], 13, batch._cache).logits[:, -1]
        alone = [
            model(torch.tensor([[*row.prompt, *row.ids]], device=batch._device)).logits[0, -1] for row in rows
        ]
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        return False, f"{model.config.model_type} takes no rows into its cache: {type(error).__name__}"
    difference = float((joined.log_softmax(-1) - torch.stack(alone).log_softmax(-1)).abs().max())
    if not difference <= TOLERANCE.get(joined.dtype, 0.5):
        return False, f"{model.config.model_type} mixes rows in its cache: they differ by {difference:.2g}"
    return True, f"checked on this model, equal to {difference:.0e}"
