"""What the tests of this room share: a way to write a log, and the folder of real edits."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows (dicts as JSON, text and bytes as they are), one per line, and return the file."""

    def _write(*rows: dict[str, Any] | str | bytes, name: str = "log.jsonl", end: bytes = b"\n") -> Path:
        lines = [json.dumps(row) if isinstance(row, dict) else row for row in rows]
        data = b"\n".join(line.encode() if isinstance(line, str) else line for line in lines)
        path = tmp_path / name
        path.write_bytes(data + end)
        return path

    return _write


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real edits; the test is skipped where it is absent."""
    folder = Path(os.environ.get("EDITLOOP_DATA", Path(__file__).parents[2] / "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no real edits at {folder}: set EDITLOOP_DATA")
    return folder
