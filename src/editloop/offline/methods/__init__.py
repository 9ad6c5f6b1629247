"""Training methods: each is one object in one file, and is found by its name.

A method from outside the package is registered by `METHODS.register`, or by its own package through the entry
point group `editloop.methods`.
"""

from __future__ import annotations

from pkgutil import iter_modules

from editloop.offline.methods.base import Hyperparameters, Method, Need, hyperparameter
from editloop.registry import Registry

__all__ = ["METHODS", "Hyperparameters", "Method", "Need", "hyperparameter"]

NOT_METHODS = ("base", "batch", "changes")
"""Modules of this package that have no method."""

METHODS: Registry[Method] = Registry(
    "method",
    "editloop.methods",
    # Every other module of this package is a method's, and has its name.
    {
        module.name: f"{__name__}.{module.name}:METHOD"
        for module in iter_modules(__path__)
        if module.name not in NOT_METHODS
    },
    attributes=("name", "hyperparameters", "loss"),
)
"""All methods, by name."""
