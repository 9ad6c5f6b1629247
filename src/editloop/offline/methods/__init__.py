"""Training methods: each is one object in one file, and is found by its name.

A method from outside the package is registered by `METHODS.register`, or by its own package through the entry
point group `editloop.methods`.
"""

from __future__ import annotations

from editloop.offline.methods.base import Hyperparameters, Method, Need, hyperparameter
from editloop.registry import Registry

__all__ = ["METHODS", "Hyperparameters", "Method", "Need", "hyperparameter"]

METHODS: Registry[Method] = Registry(
    "method",
    "editloop.methods",
    {name: f"editloop.offline.methods.{name}:METHOD" for name in ("sft", "dpo", "rl", "early", "kto", "ipo")},
    attributes=("name", "hyperparameters", "loss"),
)
"""All methods, by name."""
