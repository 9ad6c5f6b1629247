"""Which of a verb's paths are read and which are written, so that no verb replaces what it reads.

The annotation of every parameter that is a path says which of the two it is, and `guarded` compares the paths
before the verb begins. Names that a verb makes up itself are compared by the verb or by `Reading`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Any, get_args

from editloop.io import guard_outputs

__all__ = ["Place", "files_of", "guarded", "place_of", "stem"]

Verb = Callable[..., None]


class Place(Enum):
    """What a verb does with a path."""

    READ = "read"
    WRITTEN = "written"


def place_of(parameter: inspect.Parameter) -> Place | None:
    """Return what a verb does with the path in this parameter; None for a parameter without a `Place`."""
    return next((each for each in get_args(parameter.annotation) if isinstance(each, Place)), None)


def guarded(verb: Verb) -> Verb:
    """Refuse a call in which a path to be written is one that is read."""
    places = {
        name: place
        for name, parameter in inspect.signature(verb, eval_str=True).parameters.items()
        if (place := place_of(parameter)) is not None
    }

    @wraps(verb)
    def checked(**options: Any) -> None:
        def given(wanted: Place) -> Iterator[Path]:
            for name, place in places.items():
                if place is wanted:
                    yield from files_of(options.get(name))

        guard_outputs(given(Place.READ), given(Place.WRITTEN))
        verb(**options)

    return checked


def files_of(value: Any) -> Sequence[Path]:
    """Return the files that a parameter's value names: a path, those of a list, or that of a database."""
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [file for each in value for file in files_of(each)]
    if isinstance(value, Path):
        return [value]
    return [value.file] if value.file is not None else []


def stem(log: Any) -> str:
    """Return the log's name without compression and format, for the names of files made from it."""
    from editloop.edits.formats.compression import COMPRESSIONS
    from editloop.edits.formats.plain import STANDARD_INPUT

    name = Path(log.name)
    compressed = [suffix for each in COMPRESSIONS for suffix in each.suffixes]
    if str(name) == STANDARD_INPUT:
        return "stdin"
    return Path(name.stem).stem if name.suffix.lower() in compressed else name.stem
