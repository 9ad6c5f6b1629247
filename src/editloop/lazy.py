"""Names of a package that are loaded when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from editloop.extras import load_module

__all__ = ["lazy_getattr"]


def lazy_getattr(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and the `__dir__` of a package: which of its modules has which names.

    Raises:
        AttributeError: By the first of what is returned, for a name that none has.
        MissingExtraError: By the same, for a name that needs a library which is not installed.
    """
    home = {name: module for module, names in modules.items() for name in names}

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(load_module(f"{package}.{home[name]}"), name)

    def names() -> list[str]:
        return sorted({*home, *vars(import_module(package))})

    return load, names
