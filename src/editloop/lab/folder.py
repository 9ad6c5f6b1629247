"""The folder of a job that goes on when it is run again: it keeps the settings it was begun with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editloop.errors import RunError
from editloop.io import json_text, write_text

__all__ = ["claim"]


def claim(folder: Path, what: str, settings: Mapping[str, Any]) -> None:
    """Write the settings into a folder that has none, or check that they are the same.

    Args:
        folder: The folder; it is made if it is not there.
        what: What the folder holds, for the error.
        settings: What its content depends on, as JSON types.

    Raises:
        RunError: The folder holds the same with other settings, or its `settings.json` is damaged.
    """
    path = folder / "settings.json"
    wanted = json_text(settings)
    if not path.exists():
        write_text(path, wanted, RunError)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError("settings.json is damaged", seen=str(path), do="choose another folder") from error
    if found != json.loads(wanted):
        raise RunError(
            f"the folder holds another {what}", seen=str(folder), do="choose another, or remove it"
        )
