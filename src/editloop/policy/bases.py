"""Bases that are called by a short name: `lab:email` comes with the package."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name

__all__ = ["resolve_base"]

SCHEMES = {"lab": "editloop.lab.domains:base_path"}
"""Who knows the folder of `SCHEME:NAME`; by its own name, as it lies in a room above and is seldom needed."""


def resolve_base(base: str | Path) -> str | Path:
    """The folder of a base that is called `SCHEME:NAME`; any other base as it is.

    Raises:
        ConfigError: The scheme is known, and has no base of that name.
    """
    scheme, colon, name = str(base).partition(":")
    if not colon or isinstance(base, Path) or scheme not in SCHEMES:
        return base
    folder: Path = resolve_name(SCHEMES[scheme])(name)
    return folder
