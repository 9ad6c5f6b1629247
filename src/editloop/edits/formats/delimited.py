"""CSV and TSV: cells between delimiters, with a header unless the columns are named."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from editloop.edits.formats.base import Dialect, LogFile, LogFormat, RawRow, Source, readable
from editloop.edits.formats.cells import read_cells
from editloop.edits.formats.flat import OWN_COLUMNS, flat_row
from editloop.edits.formats.lines import BOM, LONGEST_LINE, TRUNCATED, refuse_archive, shortened
from editloop.edits.record import Record
from editloop.errors import LogFormatError

__all__ = ["CSV", "TSV"]

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
"""The delimiters that a header may have, with their names."""

BREAKS = "a cell holds a line break and a delimiter after it"
"""A lost quote merges rows into such a cell. A long text may look so, too: the row is used, and reported."""

QUOTED = "a cell in quotes was read with them (--quote '\"' takes them off)"


class _Delimited(LogFormat):
    """A delimited format.

    Args:
        name: `csv` or `tsv`.
        suffixes: The endings of file names.
        delimiter: The delimiter that is written between cells.
        quote: The quote around cells that are read, unless the user or the header decides otherwise.
    """

    is_flat = True
    has_dialect = True

    def __init__(self, name: str, suffixes: tuple[str, ...], delimiter: str, quote: str) -> None:
        self.name, self.suffixes, self.delimiter, self.quote = name, suffixes, delimiter, quote

    def recognises(self, log: LogFile) -> bool:
        if log.dialect.delimiter is not None:
            return (log.dialect.delimiter == "\t") == (self.delimiter == "\t")
        header = log.head.splitlines()[0]
        if b"\t" in header or self.delimiter == "\t":
            return b"\t" in header and self.delimiter == "\t"
        return any(each.encode() in header for each in DELIMITERS)

    def open(self, log: LogFile) -> Source:
        refuse_archive(log)
        log.dialect.check()
        delimiter, quote = self._find_dialect(log.path, log.dialect)
        cells = read_cells(log.path, delimiter, quote)
        first = next(cells, None)
        if first is None:
            raise LogFormatError("the log is empty", seen=str(log.name), do="check what wrote it")
        names = list(log.dialect.columns or ())
        if names and first.cells == names:
            raise LogFormatError("the log has a header", seen=first.text, do="leave --columns out")
        if names:
            cells = chain([first], cells)
        else:
            names = first.cells
            if first.problem:
                raise LogFormatError(
                    f"the header is no {self.name.upper()}: {first.problem}", seen=first.text
                )
        if len(set(names)) < len(names):
            raise LogFormatError(
                "two columns have the same name", seen=names, do="rename one, or give --columns"
            )
        own = names == list(OWN_COLUMNS)

        def rows() -> Iterator[RawRow]:
            for line, done, found, problem, text, several in cells:
                if not problem and len(found) != len(names):
                    problem = f"{'fewer' if len(found) < len(names) else 'more'} cells than the header"
                    # Only the last line of a file can lack its line break: it was cut short.
                    problem = problem if text.endswith("\n") else TRUNCATED
                if problem:
                    yield RawRow(line, done, None, problem, shortened(text))
                    continue
                suspicion = ""
                # A file of `write_log` quotes by the rules, so its long cells are not suspicious.
                if several and not own and any(_breaks(cell, delimiter) for cell in found):
                    suspicion = BREAKS
                elif not quote and '""' in text and any(map(_is_quoted, found)):
                    suspicion = QUOTED
                yield RawRow(line, done, dict(zip(names, found, strict=True)), suspicion)

        dialect = [DELIMITERS.get(delimiter, repr(delimiter)), "quoted" if quote else "not quoted"]
        dialect += ["no header"] if log.dialect.columns else []
        return Source(self, names, log.path.stat().st_size, readable(rows(), log.name), tuple(dialect))

    def write(self, records: Iterator[Record], path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            # "\r\n" ends a row, as in RFC 4180. The csv module then quotes a cell that has either character,
            # so that a lone "\r" in a text survives, too.
            writer = csv.writer(file, delimiter=self.delimiter, lineterminator="\r\n")
            writer.writerow(OWN_COLUMNS)
            for record in records:
                row = flat_row(record)
                if row["messages"] is not None:
                    row["messages"] = json.dumps(row["messages"], ensure_ascii=False)
                row["time"] = None if record.time is None else record.time.isoformat()
                writer.writerow(row.values())

    def _find_dialect(self, path: Path, given: Dialect) -> tuple[str, str]:
        """Return the delimiter and the quote of a log, as they were given or as its first line shows them.

        Tab-separated files seldom quote cells, and their texts contain quotes of their own. So a TSV file is
        read with quotes only if it has the header of `write_log`, or the user asks for them.
        """
        with path.open("rb") as file:
            first = file.readline(LONGEST_LINE).removeprefix(BOM).decode("utf-8", "replace")
        delimiter = given.delimiter
        if delimiter is None:
            tab = self.delimiter == "\t"
            delimiter = "\t" if tab else max(DELIMITERS, key=lambda each: _count(first, each))
        own = first.rstrip("\r\n").split(delimiter) == list(OWN_COLUMNS)
        default = '"' if own else self.quote
        return delimiter, default if given.quote is None else given.quote


def _count(line: str, delimiter: str) -> int:
    """Return how often a delimiter is in a line outside quotes; 0 if the csv module cannot read the line."""
    try:
        return len(next(csv.reader([line], delimiter=delimiter), [])) - 1
    except csv.Error:
        return 0


def _breaks(cell: str, delimiter: str) -> bool:
    """Whether a delimiter follows a line break in a cell."""
    at = cell.find("\n")
    return at >= 0 and delimiter in cell[at:]


def _is_quoted(cell: str) -> bool:
    """Whether a cell that was read without quotes looks like a quoted one."""
    return cell[:1] == cell[-1:] == '"' and '""' in cell[1:-1]


CSV = _Delimited("csv", (".csv",), ",", '"')
TSV = _Delimited("tsv", (".tsv", ".tab"), "\t", "")
