"""Numbers too small for a normal float: on a CPU each takes a hundred times as long as any other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["denormals_flushed"]


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """A context in which this thread computes with 0 instead of denormal numbers, where the CPU can.

    Once a preference loss is all but 0 on most pairs, its gradients there are denormal, and fill the backward
    pass. A training of EarlyEnsemble in the lab took 101 s with them and 33 s without, to the same bytes.
    """
    was_flushed = _are_flushed()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushed)


def _are_flushed() -> bool:
    """Whether denormals are flushed already; torch can set this, but does not say how it is set."""
    return float(torch.tensor(1e-40) * 1.0) == 0.0
