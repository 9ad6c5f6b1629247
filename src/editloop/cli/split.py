"""`editloop split LOG`: write the train, validation and test parts of a log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from editloop.cli.console import console, shown_progress
from editloop.cli.flags import Config, LogPath
from editloop.cli.places import Place, stem
from editloop.cli.reading import Reading, reading_line, reads
from editloop.edits.formats.plain import STANDARD_INPUT
from editloop.errors import LogError

if TYPE_CHECKING:
    from editloop.edits import Record, SplitBy


@reads
def split(
    log: LogPath,
    reading: Reading,
    by: Annotated[
        str,
        typer.Option(
            help="What stays together: context, record, user; or time, which holds the latest records out."
        ),
    ] = "context",
    validation: Annotated[float, typer.Option(help="The share of the validation part.")] = 0.1,
    test: Annotated[float, typer.Option(help="The share of the test part.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Decides the parts, except by time.")] = 0,
    to: Annotated[str, typer.Option(help="The format of the files: jsonl, parquet, csv or tsv.")] = "jsonl",
    out: Annotated[
        Path | None, typer.Option(help="Folder for train.FORMAT and so on [LOG-split]."), Place.WRITTEN
    ] = None,
    config: Config = None,
) -> None:
    """Run the verb."""
    from editloop.edits import split_log

    folder = out or Path(f"{stem(log)}-split")
    shares = {"train": 1.0, "validation": validation, "test": test}
    files = {name: folder / f"{name}.{to}" for name, share in shares.items() if share}
    with shown_progress() as callback:
        lines, readings = list[str](), list[bool]()

        def read() -> Iterator[Record]:
            if readings and str(log) == STANDARD_INPUT:
                raise LogError("a long log on standard input cannot be split", do="write it to a file first")
            readings.append(True)
            stream = reading.stream(log, folder, callback, writes=list(files.values()))
            yield from stream
            lines.append(reading_line(stream.report))

        known = cast("SplitBy", by)  # any other is refused, with those that there are
        counts = split_log(read, files, by=known, validation=validation, test=test, seed=seed)
        callback.message(lines[0])
    written = ", ".join(f"{count} in {files[name].name}" for name, count in counts.items())
    console.print(f"Written to {folder}: {written}")
