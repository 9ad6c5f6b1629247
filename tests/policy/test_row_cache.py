"""The cache of rows: every row keeps its columns, aligned on the right, whatever comes and goes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from transformers import DynamicCache

from editloop.policy.row_cache import ROOM, RowCache
from tiny import tiny_model


def written(numbers: Sequence[Sequence[float]]) -> RowCache:
    """A cache of one layer and one head of dimension 1, whose keys are these numbers; values are negative."""
    cache = RowCache()
    keys = torch.tensor(numbers)[:, None, :, None]
    cache.update(keys, -keys, 0)
    return cache


def keys_of(cache: RowCache, new: Sequence[float]) -> list[list[float]]:
    """The keys that attention sees once a column has been written; the values must be their negatives."""
    column = torch.tensor(new)[:, None, None, None]
    keys, values = cache.update(column, -column, 0)
    assert torch.equal(keys, -values)
    return keys[:, 0, :, 0].tolist()


def test_rows_of_several_caches_are_joined_on_the_right() -> None:
    long = written([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    short = written([[7.0]])
    joined = RowCache.of([(long, [1]), (short, [0])], 3)
    assert joined.get_seq_length() == 3
    assert keys_of(joined, [10.0, 20.0]) == [[4.0, 5.0, 6.0, 10.0], [0.0, 0.0, 7.0, 20.0]]


def test_columns_that_only_rows_that_are_gone_used_are_left_out() -> None:
    cache = written([[1.0, 2.0, 3.0], [0.0, 0.0, 6.0]])
    rest = RowCache.of([(cache, [1])], 1)
    assert rest.get_seq_length() == 1
    assert keys_of(rest, [7.0]) == [[6.0, 7.0]]


def test_rows_change_their_order_and_the_old_cache_stays_as_it_is() -> None:
    cache = written([[1.0], [2.0], [3.0]])
    turned = RowCache.of([(cache, [2, 0])], 1)
    assert keys_of(turned, [8.0, 9.0]) == [[3.0, 8.0], [1.0, 9.0]]
    assert keys_of(cache, [5.0, 5.0, 5.0]) == [[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]


@pytest.mark.parametrize("size", [1, 7])
def test_buffers_grow_without_moving_a_column(size: int) -> None:
    """Buffers have room for 64 columns, and are made anew several times."""
    cache, expected = RowCache(), torch.arange(4.0 * size * 150).view(2, 1, -1, 2)
    for start in range(0, expected.shape[2], size):
        part = expected[:, :, start : start + size]
        keys, values = cache.update(part, -part, 0)
        assert torch.equal(keys, expected[:, :, : start + size]) and torch.equal(values, -keys)
    assert cache.get_seq_length() == expected.shape[2] > ROOM


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_model_computes_with_it_as_with_the_librarys_own(family: str) -> None:
    model = tiny_model(family)
    ids = torch.randint(7, 150, (2, 100), generator=torch.Generator().manual_seed(0))
    ours, theirs = RowCache(), DynamicCache(config=model.config)
    with torch.inference_mode():
        for start, end in ((0, 10), (10, 70), *((i, i + 1) for i in range(70, 100))):
            seen = {"attention_mask": torch.ones(2, end, dtype=torch.long), "use_cache": True}
            found = model(input_ids=ids[:, start:end], past_key_values=ours, **seen).logits
            expected = model(input_ids=ids[:, start:end], past_key_values=theirs, **seen).logits
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
