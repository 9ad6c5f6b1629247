"""Bases with a short name, such as `lab:email`, which comes with the package."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name

__all__ = ["resolve_base"]

SCHEMES = {"lab": "editloop.lab.domains:base_path"}
"""For each scheme of `SCHEME:NAME` the function that returns the folder, as a path to import. It belongs to a
room above this one, and is imported only when such a base is asked for."""


def resolve_base(base: str | Path) -> str | Path:
    """The folder of a base with a short name `SCHEME:NAME`; any other base as it is.

    Raises:
        ConfigError: The scheme is known, and has no base of that name.
    """
    scheme, colon, name = str(base).partition(":")
    if not colon or isinstance(base, Path) or scheme not in SCHEMES:
        return base
    folder: Path = resolve_name(SCHEMES[scheme])(name)
    return folder
