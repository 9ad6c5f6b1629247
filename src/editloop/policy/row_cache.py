"""A cache of keys and values whose rows come and go while the others go on.

Rows are aligned on the right: all of them write their next token in the same column, and what a shorter row
lacks on the left is padding. So every model that `transformers` can generate with in batches can use it. A
layer with a sliding window keeps all columns, and the model's own mask hides those outside the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

__all__ = ["RowCache"]

ROOM = 64
"""Columns of new buffers beyond those in use. `DynamicLayer` copies all it has at every token instead."""


class _RowLayer(DynamicLayer):  # type: ignore[misc]
    """The keys and values of a layer, in buffers [rows, heads, columns in use and room, dimension]."""

    def __init__(self) -> None:
        super().__init__()
        self.used = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """See `CacheLayerMixin`."""
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        self.keys, self.values = (_buffer(each, len(each), 0) for each in (key_states, value_states))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write columns [rows, heads, new, dimension], and return all columns in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.used = self.used, self.used + key_states.shape[2]
        if self.used > self.keys.shape[2]:
            self.keys, self.values = (self._grown(each, start) for each in (self.keys, self.values))
        self.keys[:, :, start : self.used] = key_states
        self.values[:, :, start : self.used] = value_states
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def _grown(self, buffer: torch.Tensor, count: int) -> torch.Tensor:
        """A buffer with room for all columns in use, whose first `count` are those of this one."""
        made = _buffer(buffer, len(buffer), self.used)
        made[:, :, :count] = buffer[:, :, :count]
        return made

    def columns(self, buffer: torch.Tensor, count: int) -> torch.Tensor:
        """The last columns in use of a buffer, at most `count`."""
        return buffer[:, :, max(0, self.used - count) : self.used]

    def get_seq_length(self) -> int:
        """See `CacheLayerMixin`."""
        return self.used


class RowCache(Cache):  # type: ignore[misc]
    """Keys and values of rows, aligned on the right; it is passed to a model as `past_key_values`."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_RowLayer)

    @classmethod
    def of(cls, parts: Sequence[tuple[RowCache, Sequence[int]]], width: int) -> RowCache:
        """The cache of some rows of other caches, in this order.

        Args:
            parts: Caches, each with the indices of its rows.
            width: The length of the longest of these rows in tokens. Columns further left are left out.
        """
        made = cls()
        for layers in zip(*(cache.layers for cache, _ in parts), strict=True):
            rows = [(layer, list(indices)) for layer, (_, indices) in zip(layers, parts, strict=True)]
            first, layer = layers[0], _RowLayer()
            layer.dtype, layer.device, layer.is_initialized = first.dtype, first.device, True
            layer.keys = _joined([each.columns(each.keys, width)[own] for each, own in rows], width)
            layer.values = _joined([each.columns(each.values, width)[own] for each, own in rows], width)
            layer.used = width
            made.layers.append(layer)
        return made


def _buffer(like: torch.Tensor, rows: int, width: int) -> torch.Tensor:
    # Zeros, not whatever is in memory: a hidden column has the weight 0 in attention, and 0 times NaN is NaN.
    return like.new_zeros((rows, like.shape[1], width + ROOM, like.shape[3]))


def _joined(parts: Sequence[torch.Tensor], width: int) -> torch.Tensor:
    """Buffers of some columns below one another, their last columns in column `width` - 1."""
    made = _buffer(parts[0], sum(map(len, parts)), width)
    row = 0
    for each in parts:
        made[row : row + len(each), :, width - each.shape[2] : width] = each
        row += len(each)
    return made
