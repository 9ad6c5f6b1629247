"""Packages whose names are loaded when they are first used (PEP 562).

Python asks a package's `__getattr__` only for a name that the package does not have. Importing a module makes
it an attribute of its package. So no public name of a lazy package may be the name of one of its modules:
once that module was imported, the name would stand for the module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from editloop.extras import load_module

__all__ = ["lazy_getattr"]


def lazy_getattr(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a `__getattr__` and a `__dir__` for a package.

    `__getattr__` raises an `AttributeError` for a name that no module has, and a `MissingExtraError` for one
    that needs a library which is not installed.

    Args:
        package: The name of the package.
        modules: The public names of each of its modules.
    """
    home = {name: module for module, names in modules.items() for name in names}

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(load_module(f"{package}.{home[name]}"), name)

    def names() -> list[str]:
        # What the package has by itself, beside what it can load; without `__dir__` only that would be
        # listed.
        return sorted({*home, *vars(import_module(package))})

    return load, names
