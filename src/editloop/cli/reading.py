"""The log that a verb is given: the flags for reading it, and the line about what was read.

The flags are the fields of `Reading`; `reads` adds them to a verb that takes a `Reading`.
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from editloop.cli.places import Place, files_of
from editloop.edits.formats.names import FORMATS
from editloop.io import guard_outputs
from editloop.progress import ProgressCallback

if TYPE_CHECKING:
    from editloop.edits import Log, LogAddress, ReadReport, RecordStream

__all__ = ["Reading", "reading_line", "reads"]

Verb = Callable[..., None]

TABLES = ("jsonl", "csv", "tsv", "parquet", "dataset", "database")
TOOLS = [name for name in FORMATS.built_in if name not in TABLES]
"""The formats that only `--format` names, beside those that name or contents show."""


@dataclass(frozen=True)
class Reading:
    """How a log is read. Each field is a flag."""

    map: Annotated[
        str | None,
        typer.Option(
            help="Columns of a foreign log: context=instruction,response=preedit; status= leaves a field out."
        ),
    ] = None
    format: Annotated[
        str | None,
        typer.Option(
            help="The format, if name and contents do not show it: jsonl, csv, tsv, parquet, dataset; or the "
            f"tool whose export it is: {', '.join(TOOLS)}."
        ),
    ] = None
    empty: Annotated[
        str | None,
        typer.Option(help="What an empty edit in CSV or TSV means without a status: deleted or pending."),
    ] = None
    delimiter: Annotated[
        str | None, typer.Option(help=r"The delimiter of CSV and TSV, \t for a tab [that of the header].")
    ] = None
    quote: Annotated[
        str | None,
        typer.Option(help="The quote of CSV and TSV, '' for none [double quotes in CSV, none in TSV]."),
    ] = None
    columns: Annotated[
        str | None,
        typer.Option(help="Names for the columns of CSV or TSV without a header, separated by commas."),
    ] = None
    encoding: Annotated[
        str | None,
        typer.Option(
            help="The encoding of text that is not UTF-8, such as cp1252; UTF-16 and UTF-32 are recognised."
        ),
    ] = None
    parallel: Annotated[
        tuple[Path, Path, Path] | None,
        typer.Option(
            metavar="CONTEXTS RESPONSES EDITS",
            help="Three files whose lines belong together, in place of LOG.",
        ),
        Place.READ,
    ] = None
    agent_author: Annotated[
        str | None,
        typer.Option(help="Of a git repository: a part of the agent's name or address, as (co-)author."),
    ] = None
    quarantine: Annotated[
        Path | None,
        typer.Option(help="File for bad rows, each with line and reason [OUT-quarantine.jsonl]."),
        Place.WRITTEN,
    ] = None
    max_bad_share: Annotated[
        float, typer.Option(help="The share of bad rows above which the log is refused.")
    ] = 0.05
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Keep rows that are equal to an earlier one.")
    ] = False
    user: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Read the rows of this user alone; may be repeated."),
    ] = None

    def again(self) -> str:
        """Return the flags to type for reading another log like this one."""
        typed = ""
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in ("quarantine", "parallel") or value == each.default:
                continue
            for one in value if isinstance(value, list) else [value]:
                typed += f" --{each.name.replace('_', '-')}"
                typed += "" if one is True else f" {shlex.quote(str(one))}"
        return typed

    def stream(
        self, log: Path | LogAddress, out: Path, callback: ProgressCallback, *, writes: Sequence[Path] = ()
    ) -> RecordStream:
        """Stream the records of a log; bad rows go to a file beside `out`.

        Args:
            log: The log; with parallel files, the contexts.
            out: The file or folder that the verb makes.
            callback: Receives the progress of reading.
            writes: The files that the verb will write, if that is not `out` itself.

        Raises:
            ConfigError: The verb would write over the log or over the quarantine.
        """
        from editloop.edits import iter_records

        # Beside `out` and not in it, because a folder may have to be empty or absent when the verb begins.
        name = out.name.removesuffix(".jsonl").removesuffix(".json")
        quarantine = self.quarantine or out.absolute().parent / f"{name}-quarantine.jsonl"
        parallel = (self.parallel or ())[1:]
        guard_outputs([*files_of(log), *parallel, quarantine], writes or [out])
        options: dict[str, Any] = vars(self) | {"quarantine": quarantine, "parallel": parallel}
        options["options"] = {"agent_author": options.pop("agent_author")}
        options["user"] = self.user or None  # the command gives an empty list where none was named
        if self.delimiter is not None:
            options["delimiter"] = self.delimiter.replace("\\t", "\t")  # a tab is hard to type in a shell
        return iter_records(
            log, **options, progress=lambda done, total: callback.progress("reading", done, total)
        )

    def read(
        self, log: Path | LogAddress, out: Path, callback: ProgressCallback, *, writes: Sequence[Path] = ()
    ) -> Log:
        """Read the whole log, and report what was read."""
        from editloop.edits import Log

        stream = self.stream(log, out, callback, writes=writes)
        records = tuple(stream)
        callback.message(reading_line(stream.report))
        return Log(records, stream.report)


def reads(verb: Verb, **defaults: Any) -> Verb:
    """Replace a verb's parameter of the type `Reading` by its flags.

    Args:
        verb: The verb.
        defaults: Other defaults of some flags than those of `Reading`.


    Typer finds the flags of a verb in its signature, so the signature is replaced. LOG becomes optional
    there, because `--parallel` names the files instead.
    """
    hints = get_type_hints(Reading, include_extras=True)
    flags = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults.get(each.name, each.default),
            annotation=hints[each.name],
        )
        for each in fields(Reading)
    ]
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(verb, eval_str=True).parameters.values():
        given = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        given = given.replace(default=None) if given.name == "log" else given
        parameters += flags if parameter.annotation is Reading else [given]

    @wraps(verb)
    def expanded(**options: Any) -> None:
        reading = Reading(**{each.name: options.pop(each.name) for each in fields(Reading)})
        if (options["log"] is None) == (reading.parallel is None):
            raise typer.BadParameter("give either LOG or --parallel", param_hint="LOG")
        if reading.parallel is not None:
            options["log"] = reading.parallel[0]
        verb(reading=reading, **options)

    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return expanded


def reading_line(report: ReadReport) -> str:
    """Return a line about what was read."""
    line = f"read {report.rows_read} rows of {report.path.name} ({', '.join(report.read_as)}): "
    line += f"{report.bad_rows} bad, {report.duplicates} duplicates"
    if report.bad_rows:
        worst = [f"{count} {reason}" for reason, count in report.reasons.most_common(3)]
        more = ["..."] if len(report.reasons) > len(worst) else []
        line += f" ({', '.join(worst + more)}; see {report.quarantine})"
    if report.left_out:
        line += f"; {report.left_out.total()} are no drafts"
    if report.other_users:
        line += f"; {report.other_users} of other users"
    if report.empty_edits:
        line += f"; {report.empty_edits} empty edits"
    if report.times_dropped:
        line += f"; {report.times_dropped} times cannot be read and are left out (--map time= leaves out all)"
    if report.suspicious:
        line += f"; {report.suspicious.total()} suspicious, the first at {report.first_suspicious}"
    return f"{line}; {report.problem}" if report.problem else line
