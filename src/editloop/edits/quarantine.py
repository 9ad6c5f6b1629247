"""Where bad rows go: a JSONL file of line number, reason and the row's beginning.

The file is written only when there is something for it. That it cannot be written must not cost the log
that can be read: the problem is kept and told, the counts go on.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import IO

from editloop.edits.database import DatabaseLog
from editloop.errors import ConfigError
from editloop.io import resolved

SHOWN = 1000
"""Characters of a bad row that are kept."""


class Quarantine:
    """Counts bad rows by reason and writes them down.

    Attributes:
        reasons: How many rows by reason.
        first: The first bad row, `line 3: response: empty`.
        path: The file, once there is one.
        problem: Why the file could not be written, if so.
    """

    def __init__(self, path: Path | None, log: Path | DatabaseLog) -> None:
        if path is not None and resolved(path) == resolved(log):
            raise ConfigError(
                "the quarantine would overwrite the log", seen=str(path), do="name another file"
            )
        self.reasons: Counter[str] = Counter()
        self.first: str | None = None
        self.path: Path | None = None
        self.problem: str | None = None
        self._wanted = path
        self._file: IO[str] | None = None

    def add(self, line: int, reason: str, row: str) -> None:
        """Count a bad row and write it down."""
        self.reasons[reason] += 1
        self.first = self.first or f"line {line}: {reason}"
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
        except OSError as failure:  # a full disk often shows only when the buffer is written
            self._failed(failure)
