"""Formats by name, and finding the format of a log."""

from __future__ import annotations

import glob
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from editloop.edits.formats.base import Dialect, LogAddress, LogFile, LogFormat, Source
from editloop.edits.formats.lines import BOM
from editloop.errors import ConfigError, LogError, LogFormatError
from editloop.registry import Registry

if TYPE_CHECKING:
    from editloop.edits.formats.plain import Plain

__all__ = [
    "FORMATS",
    "check_readable",
    "format_of_suffix",
    "locate",
    "looks_like",
    "open_source",
    "open_table",
]

FORMATS: Registry[LogFormat] = Registry(
    "format",
    "editloop.formats",
    {
        "jsonl": "editloop.edits.formats.jsonl:JSONL",
        "csv": "editloop.edits.formats.delimited:CSV",
        "tsv": "editloop.edits.formats.delimited:TSV",
        "parquet": "editloop.edits.formats.parquet:PARQUET",
        "dataset": "editloop.edits.formats.dataset:DATASET",
        "parquet-files": "editloop.edits.formats.partitioned:PARTITIONED",
        "langfuse": "editloop.edits.formats.langfuse:LANGFUSE",
        "phoenix": "editloop.edits.formats.phoenix:PHOENIX",
        "langsmith": "editloop.edits.formats.langsmith:LANGSMITH",
        "argilla": "editloop.edits.formats.argilla:ARGILLA",
        "label-studio": "editloop.edits.formats.label_studio:LABEL_STUDIO",
        "openai-chat": "editloop.edits.formats.openai:CHAT",
        "openai-preference": "editloop.edits.formats.openai:PREFERENCE",
        "trl-dpo": "editloop.edits.formats.trl:DPO",
        "git": "editloop.edits.formats.git:GIT",
        "google-docs": "editloop.edits.formats.google_docs:GOOGLE_DOCS",
        "docx": "editloop.edits.formats.docx:DOCX",
        # The store is a room above this one, so it is only named here. Its module imports no database library
        # at its top, so that looking through all formats needs no extra.
        "database": "editloop.store.log:DATABASE",
    },
    attributes=("name", "suffixes", "schemes", "recognises", "open", "write"),
    error=LogFormatError,
)


def locate(log: str | Path | LogAddress) -> Path | LogAddress:
    """Return a log's path, or where it is if it is no single file or folder here.

    Args:
        log: A path, a glob, an address such as `sqlite:///edits.db` or `s3://bucket/log`, or what this
            function returned.

    Raises:
        ConfigError: No format knows such an address, or it is not well formed.
        MissingExtraError: A library that the address needs is not installed.
    """
    if not isinstance(log, str):
        return log
    scheme, separator, _ = log.partition("://")
    if not separator:
        if not glob.has_magic(log) or Path(log).exists():  # a file's name may have a bracket in it
            return Path(log)
        return next(each for each in FORMATS.parts() if each.takes_globs).locate(log)
    known: list[str] = []
    for format in FORMATS.parts():
        if scheme.partition("+")[0] in format.schemes:  # SQLAlchemy's `postgresql+psycopg` names a driver
            return format.locate(log)
        known += format.schemes
    raise ConfigError("no such kind of address", seen=scheme, do=f"use one of {', '.join(known)}")


def format_of_suffix(suffix: str) -> LogFormat | None:
    """Return the format of files with this suffix, or None."""
    return next((each for each in FORMATS.parts() if suffix.lower() in each.suffixes), None)


def open_source(
    path: Path | LogAddress,
    format: str | None = None,
    wanted: Collection[str] | None = None,
    *,
    plain: Plain | None = None,
    dialect: Dialect | None = None,
    options: Mapping[str, str] | None = None,
) -> Source:
    """Open a log. Its format is found from the name, or else from the contents.

    Args:
        path: A file, a folder, or a log in a database.
        format: The name of its format, where neither name nor contents show it.
        wanted: The columns to read, in formats that can read some without the others; None for all.
        plain: The plain file that was made of the log, if it is not `path` itself.
        dialect: How cells are written, for CSV and TSV.
        options: The options of its format.

    Raises:
        ConfigError: Its format has no such option.
        LogError: There is no such file, or it cannot be read.
        LogFormatError: It is empty, of no known format, or not of the format that its name implies.
    """
    given = None if format is None else FORMATS.get(format)
    if not isinstance(path, Path):
        return path.open(wanted)
    name = Path(plain.name) if plain is not None else path
    log = LogFile(plain.path if plain is not None else path, name, b"", wanted, dialect or Dialect())
    try:
        if log.path.is_dir():
            found = _folder_format(log, given)
            return found.open(log._replace(options=_checked(options, found)))
        with log.path.open("rb") as file:
            log = log._replace(head=file.read(4096))
    except OSError as error:
        raise LogError(f"the log cannot be read, {error.strerror}", seen=str(name)) from None
    if not log.head.removeprefix(BOM).strip():
        raise LogFormatError("the log is empty", seen=str(name), do="check what wrote it")
    found = given or format_of_suffix(name.suffix) or _recognised(log)
    log = log._replace(options=_checked(options, found))
    if log.dialect.is_given and not found.has_dialect:
        raise LogFormatError(
            "only CSV and TSV have delimiters, quotes and named columns", seen=found.name, do="give --format"
        )
    if found.is_folder:
        raise LogFormatError(
            f"a {found.name} is a folder, this is a file", seen=str(path), do="name its folder"
        )
    # A binary file under a text format's name is refused here, because every line of it would be a bad row. A
    # format with first bytes of its own says itself what is wrong.
    actual = next((each for each in FORMATS.parts() if each.magic and log.head.startswith(each.magic)), found)
    if actual is not found and not found.magic and not found.is_export:
        raise LogFormatError(
            f"the log is not {found.name.upper()}", seen=str(name), do="give its true --format"
        )
    return found.open(log)


def open_table(log: LogFile) -> Source:
    """Open a file or folder as rows of columns, for a format that knows what another tool's columns mean.

    Raises:
        LogError: As in `open_source`.
        LogFormatError: As in `open_source`.
    """
    if log.path.is_dir():
        return _folder_format(log, None).open(log)
    return (format_of_suffix(log.name.suffix) or _recognised(log)).open(log)


def looks_like(log: LogFile) -> list[str]:
    """Return the names of the formats that a log may be in: those of other tools, or else one of a table."""
    found = [each for each in FORMATS.parts() if each.recognises(log)]
    exports = [each.name for each in found if each.is_export]
    return exports or [each.name for each in found[:1]]


def _checked(options: Mapping[str, str] | None, format: LogFormat) -> Mapping[str, str]:
    """Return the options that were given for a format.

    Raises:
        ConfigError: It does not have one of them.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    for name in given:
        if name not in format.options:
            raise ConfigError(f"the format {format.name} has no such option", seen=name, do="leave it out")
    return given


def _folder_format(log: LogFile, given: LogFormat | None) -> LogFormat:
    if given is not None and (given.is_folder or given.takes_folders):
        return given
    found = next((each for each in FORMATS.parts() if each.is_folder and each.recognises(log)), None)
    if found is None:
        raise LogFormatError(
            "this folder is no dataset, and has no Parquet file"
            if any(log.path.iterdir())
            else "an empty folder",
            seen=str(log.path),
            do="give a file, a folder of Parquet files, or one that save_to_disk wrote",
        )
    return found


def _recognised(log: LogFile) -> LogFormat:
    """Return the format of a file by its first bytes.

    Raises:
        LogFormatError: No format recognises it.
    """
    files = [each for each in FORMATS.parts() if not each.is_folder and not each.is_export]
    # Formats with fixed first bytes come first, because binary data may contain a tab or a brace anywhere.
    by_magic = [each for each in files if each.magic and log.head.startswith(each.magic)]
    found = next(iter(by_magic), None) or next((each for each in files if each.recognises(log)), None)
    if found is None:
        raise LogFormatError(
            "neither name nor contents show the log's format",
            seen=str(log.name),
            do=f"give --format, one of {', '.join(FORMATS)}",
        )
    return found


def check_readable(path: Path) -> None:
    """Refuse what is neither a file nor a folder before it is opened: opening a pipe would block for ever.

    Raises:
        LogError: It is not there, or is something else.
    """
    try:
        if not path.is_dir() and not path.is_file():
            path.stat()  # raises the reason if it is not there
            raise LogError(
                "the log is a pipe or device, and it is read more than once",
                seen=str(path),
                do="write it to a file first, or give - for standard input",
            )
    except FileNotFoundError:
        raise LogError("no such log", seen=str(path), do="check the path") from None
    except OSError as error:
        raise LogError(f"the log cannot be read, {error.strerror}", seen=str(path)) from None
