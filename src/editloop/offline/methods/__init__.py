"""Training methods, each one object in one file, found by name.

A method from outside the package is registered by `METHODS.register`, or is found through the entry point
group `editloop.methods` of the package that brings it.
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
"""Every method that can be trained, by name."""
