"""Where bad rows go: a JSONL file with the line number, the reason and the beginning of each.

The file is made with the first bad row. If it cannot be written, the log is read all the same: rows are still
counted, and the report says why the file is incomplete. It is not written atomically, because it is needed
most where reading ends in an error.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import IO

SHOWN = 1000
"""Characters of a bad row that are written."""


class Quarantine:
    """Counts bad rows by reason, and writes them to a file.

    Attributes:
        reasons: The number of rows by reason.
        first: The first bad row, for example `line 3: response: empty`.
        path: The file, once there is one.
        problem: Why the file could not be written, if that is so.
    """

    def __init__(self, path: Path | None) -> None:
        self.reasons: Counter[str] = Counter()
        self.first: str | None = None
        self.path: Path | None = None
        self.problem: str | None = None
        self._wanted = path
        self._file: IO[str] | None = None

    def add(self, line: int, reason: str, row: str) -> None:
        """Count a bad row and write it to the file."""
        self.reasons[reason] += 1
        self.first = self.first or f"line {line}: {reason}"
        self.write(line, reason, row)

    def write(self, line: int, reason: str, row: str) -> None:
        """Write a row to the file, although it is not bad."""
        if self._wanted is None or self.problem is not None:
            return
        try:
            if self._file is None:
                self._wanted.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._wanted.open("w", encoding="ascii")
                self.path = self._wanted
            shown = row if len(row) <= SHOWN else row[:SHOWN] + "…"
            self._file.write(json.dumps({"line": line, "reason": reason, "row": shown}) + "\n")
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        self.problem = f"the quarantine {self._wanted} is incomplete: {error.strerror or error}"

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._file is not None:
                self._file.close()
        except OSError as failure:  # closing writes the buffer, and may be the first to notice a full disk
            self._failed(failure)
