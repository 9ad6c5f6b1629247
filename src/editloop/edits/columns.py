"""The map from the fields of a record to the columns of a foreign log, and the paths in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from editloop.edits.record import Record
from editloop.errors import ConfigError
from editloop.io import parse_json

__all__ = ["MISSING", "TARGETS", "check_map", "first_parts", "from_json", "look_up", "parse_map"]

TARGETS = (*Record.model_fields, "messages")
"""The fields that a column can be mapped to, beside `metadata.NAME`."""

MISSING = object()
"""What `look_up` returns where a path leads to nothing; None can be a value."""

INDEX = re.compile(r"-?\d+")
SLICE = re.compile(r"(-?\d+)?:(-?\d+)?")


def parse_map(text: str) -> dict[str, str]:
    """Parse `"response=output.text,edit=final,status="` into a mapping from fields to columns.

    A field that is mapped to the empty text is left out of the records.

    Raises:
        ConfigError: The text is not of that form, or names a field that records do not have.
    """
    columns: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        target, equals, column = (each.strip() for each in part.partition("="))
        if not equals or target in columns:
            raise ConfigError(
                "a map is FIELD=COLUMN,FIELD=COLUMN, each field once", seen=text, do="fix --map"
            )
        columns[target] = column
    return check_map(columns)


def check_map(columns: Mapping[str, str]) -> dict[str, str]:
    """Return a map after checking its fields.

    Raises:
        ConfigError: Records do not have one of the fields.
    """
    for target in columns:
        family, _, name = target.partition(".")
        if target not in TARGETS and (family != "metadata" or not name or not columns[target]):
            raise ConfigError(
                "records have no such field",
                seen=target,
                do=f"map one of {', '.join(TARGETS)}, metadata.NAME",
            )
    return dict(columns)


def first_parts(columns: Mapping[str, str]) -> set[str]:
    """Return the columns at which a map's paths may begin.

    That is the first part of a path, or the whole path, because the name of a column may contain dots.
    """
    return {*columns.values(), *(path.split(".")[0] for path in columns.values())}


def look_up(row: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path of a row, or MISSING.

    A column of exactly that name comes first, because names may contain dots. Otherwise each part of the path
    is the key of an object, the index of a list (`scores.-1`) or a slice of a list (`messages.:-1`). A text
    that holds JSON is parsed on the way.
    """
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        if isinstance(value, str):
            value = from_json(value)
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and (bounds := SLICE.fullmatch(part)):
            value = value[slice(*(None if bound is None else int(bound) for bound in bounds.groups()))]
        elif isinstance(value, list) and _is_index(part, len(value)):
            value = value[int(part)]
        else:
            return MISSING
    return value


def from_json(text: str) -> Any:
    """Return the value of a JSON text. A text that is not JSON is returned, and the record rejects it."""
    try:
        return parse_json(text)
    except ValueError:
        return text


def _is_index(part: str, length: int) -> bool:
    return INDEX.fullmatch(part) is not None and -length <= int(part) < length
