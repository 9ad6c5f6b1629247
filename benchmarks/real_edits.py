"""Edits that people made: where their files are, and how they are read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from editloop.errors import ConfigError

__all__ = ["READ", "real_file", "real_files", "real_folder"]

READ: dict[str, Any] = {"map": "context=src,response=mt,edit=pe", "quote": '"'}
"""How the files of MLQE-PE are read; unlike most tab-separated files, they use quotes."""


def real_folder(folder: str | Path | None) -> Path:
    """Return the folder of real edits: `EDITLOOP_DATA` or `../shared/data` if none is given."""
    return Path(folder or os.environ.get("EDITLOOP_DATA", "../shared/data"))


def real_file(folder: str | Path | None, name: str) -> Path:
    """Return a file of the folder of real edits.

    Raises:
        ConfigError: The file does not exist.
    """
    return _existing(real_folder(folder), [name])[0]


def real_files(folder: str | Path | None, names: Iterable[str]) -> list[Path]:
    """Return the files of post-edits with these names, such as `ro-en.train`, in the folder of real edits.

    Raises:
        ConfigError: A file does not exist.
    """
    return _existing(real_folder(folder), [f"mlqe_pe.{name}.tsv" for name in names])


def _existing(place: Path, names: Sequence[str]) -> list[Path]:
    if missing := [name for name in names if not (place / name).is_file()]:
        raise ConfigError(
            f"missing files of real edits: {', '.join(missing)}",
            seen=str(place),
            do="set EDITLOOP_DATA to the folder of real edits",
        )
    return [place / name for name in names]
