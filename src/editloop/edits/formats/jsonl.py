"""JSON lines: one object per line, which keeps a record as it is.

A file that holds one JSON array is divided into lines before it comes here (`editloop.edits.formats.plain`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from editloop.edits.contexts import context_json
from editloop.edits.formats.base import LogFile, LogFormat, RawRow, Source, readable
from editloop.edits.formats.lines import (
    BOM,
    NOT_UTF8,
    TOO_LONG,
    TRUNCATED,
    refuse_archive,
    shortened,
    split_lines,
)
from editloop.edits.record import Record
from editloop.io import UnsafeJSONError, parse_json

__all__ = ["JSONL"]


class _JSONLines(LogFormat):
    name = "jsonl"
    suffixes = (".jsonl", ".ndjson", ".json")
    takes_arrays = True

    def recognises(self, log: LogFile) -> bool:
        return log.head.removeprefix(BOM).lstrip()[:1] in (b"{", b"[")

    def open(self, log: LogFile) -> Source:
        refuse_archive(log)
        return Source(self, None, log.path.stat().st_size, readable(_rows(log.path), log.name))

    def write(self, records: Iterator[Record], path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for record in records:
                time = None if record.time is None else record.time.isoformat()
                row = {**vars(record), "context": context_json(record.context), "time": time}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _rows(path: Path) -> Iterator[RawRow]:
    with path.open("rb") as file:
        for number, (line, done, cut) in enumerate(split_lines(file), start=1):
            if not line.strip():
                continue
            row, reason = None, ""
            try:
                row = parse_json(line) if not cut else None
            except UnicodeDecodeError:
                reason = NOT_UTF8
            except UnsafeJSONError as error:
                reason = str(error)
            except ValueError:
                reason = "not JSON" if line.endswith(b"\n") else TRUNCATED
            if isinstance(row, dict):
                yield RawRow(number, done, row)
            else:
                reason = TOO_LONG if cut else reason or "not a JSON object"
                yield RawRow(number, done, None, reason, shortened(line))


JSONL = _JSONLines()
