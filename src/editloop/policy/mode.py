"""A model in evaluation mode while anybody computes with it, and afterwards in the mode it was in."""

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
"""How many threads compute with a model, and which of its modules were in training mode before the first."""


def core_of(model: Any) -> Any:
    """The `transformers` model with the adapter's layers in it, without PEFT's wrapper around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Within it no module is in training mode; the last thread to leave puts each into its own again."""
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
