"""Denormal numbers are 0 within the context, and what they were before after it."""

from __future__ import annotations

import pytest
import torch

from editloop.policy.denormals import denormals_flushed


def smallest() -> float:
    return float(torch.tensor(1e-40) * 1.0)


@pytest.mark.parametrize("before", [False, True])
def test_the_setting_is_restored(before: bool) -> None:
    if not torch.set_flush_denormal(before):
        pytest.skip("this CPU cannot flush denormals")
    try:
        expected = smallest()
        assert (expected == 0) == before
        with denormals_flushed():
            assert smallest() == 0
            with denormals_flushed():
                pass
            assert smallest() == 0
        assert smallest() == expected
        with pytest.raises(KeyError), denormals_flushed():
            raise KeyError
        assert smallest() == expected
    finally:
        torch.set_flush_denormal(False)
