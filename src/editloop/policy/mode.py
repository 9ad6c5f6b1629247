"""Keep a model in evaluation mode while any thread computes with it, and restore its mode afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

__all__ = ["core_of", "evaluating"]

_lock = threading.Lock()
_inside: WeakKeyDictionary[nn.Module, tuple[int, list[nn.Module]]] = WeakKeyDictionary()
"""The threads that compute with each model, and the modules that were in training mode before the first."""


def core_of(model: Any) -> Any:
    """The `transformers` model, with the adapter's layers in it but without PEFT's wrapper around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """A context in which no module is in training mode; the last thread to leave restores each module's mode.

    Args:
        model: The model, or its PEFT wrapper.
    """
    # `model.eval()` and `model.train()` would not do: two threads may overlap, and dropout in a frozen base
    # may be off where an adapter's is on, so that the mode is a matter of each module.
    core = core_of(model)
    with _lock:
        count, training = _inside.get(core, (0, []))
        if count == 0:
            training = [module for module in core.modules() if module.training]
            for module in training:
                module.training = False
        _inside[core] = count + 1, training
    try:
        yield
    finally:
        with _lock:
            count, training = _inside.pop(core)
            if count > 1:
                _inside[core] = count - 1, training
            else:
                for module in training:
                    module.training = True
