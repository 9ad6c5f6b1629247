"""What the tests of the command share: a mistake is one line, and a log to call it on."""

from __future__ import annotations

import json
from pathlib import Path


def fails(result: tuple[int, str, str], *words: str, status: int = 1) -> None:
    """The command's exit status, output and error output are those of a user's error."""
    assert result[0] == status
    err = result[2]
    assert err.startswith("editloop: error: ") and err.count("\n") == 1, err
    assert words
    for word in words:
        assert word in err


def rows(path: Path, count: int, edit: str | None = "the edit {i} is longer") -> Path:
    lines = [
        {
            "id": str(i),
            "context": f"notes {i}",
            "response": f"the draft {i}",
            "edit": edit and edit.format(i=i),
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
