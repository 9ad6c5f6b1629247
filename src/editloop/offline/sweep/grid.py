"""The runs of a grid: every combination of its values, with the flags and the folder of each.

A field of the grid is a field of `FitConfig` (`seed`, `lora.rank`), a method's hyperparameter (`dpo.beta`, or
`learning_rate` for all methods that have it), or one of the inputs (`log`, `base`).
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from editloop.configuration import read_yaml
from editloop.errors import ConfigError
from editloop.offline.config import FitConfig
from editloop.offline.methods import METHODS

__all__ = ["INPUTS", "Grid", "SweepRun", "make_runs", "parse_grid", "read_grid"]

INPUTS = ("log", "base")
"""The inputs of a fit that a grid may vary."""

Grid = Mapping[str, tuple[Any, ...]]
"""The values of each field, in the order in which they were given."""

LONGEST_NAME = 100
"""Characters of a run's folder; of a longer name the end becomes a hash."""


@dataclass(frozen=True)
class SweepRun:
    """One fit of a sweep.

    Attributes:
        name: The name of its run folder, made from its values alone.
        values: The value of each field of the grid.
        arguments: The command line after `editloop`.
    """

    name: str
    values: Mapping[str, Any]
    arguments: tuple[str, ...]


def read_grid(path: Path) -> dict[str, tuple[Any, ...]]:
    """Read a grid from a YAML file: a mapping from fields to lists of values; `dpo: {beta: [0.1, 1]}` is
    `dpo.beta`.

    Raises:
        ConfigError: The file cannot be read, or is not such a mapping.
    """
    content = read_yaml(path, "grid")
    if not isinstance(content, dict):
        raise ConfigError("a grid is a mapping from fields to lists of values", seen=str(path))
    return {name: _listed(values) for name, values in _flat(content)}


def _flat(content: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = f"{before}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _listed(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, list) else (values,)


def parse_grid(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Parse texts `FIELD=VALUE,VALUE`; values that hold commas are divided by semicolons.

    Raises:
        ConfigError: A text is not of that form.
    """
    grid = {}
    for text in texts:
        name, equals, given = text.partition("=")
        values = tuple(part.strip() for part in given.split(";" if ";" in given else ",") if part.strip())
        if not (name.strip() and equals and values):
            raise ConfigError("--grid wants FIELD=VALUE,VALUE", seen=text, do="as in seed=0,1,2")
        grid[name.strip()] = values
    return grid


def make_runs(grid: Grid, inputs: Mapping[str, str], out: Path, rest: Sequence[str]) -> list[SweepRun]:
    """Return a run for every combination of the values, the first field varying slowest.

    Args:
        grid: The values of each field.
        inputs: The log and the base of all runs that the grid does not say otherwise of.
        out: The folder of the run folders.
        rest: Further arguments of every fit.

    Raises:
        ConfigError: A field does not exist or has no values, a value is wrong, or a run would have no log or
            no base.
    """
    if not grid:
        raise ConfigError("the grid is empty", do="--grid FIELD=VALUE,VALUE or --grid-file FILE")
    for name, several in grid.items():
        _check(name)
        if not several or len({str(value) for value in several}) != len(several):
            raise ConfigError("a field of the grid needs values, each once", seen=name)
    points = (dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values()))
    return [_make_run(values, inputs, out, rest) for values in points]


def _make_run(
    values: Mapping[str, Any], inputs: Mapping[str, str], out: Path, rest: Sequence[str]
) -> SweepRun:
    """Return the run of one point of a grid."""
    given = {**inputs, **{name: str(values[name]) for name in INPUTS if name in values}}
    if lacking := [name for name in INPUTS if not given.get(name)]:
        raise ConfigError(
            f"the fits have no {lacking[0]}", do="give LOG and --base, or put them into the grid"
        )
    name, where = _name(values), ("--base", given["base"], "--out")
    flags = [flag for field, value in values.items() if field not in INPUTS for flag in _flags(field, value)]
    return SweepRun(name, values, ("fit", given["log"], *where, str(out / name), *flags, *rest))


def _check(name: str) -> None:
    """Refuse a name that is no field.

    Raises:
        ConfigError: It is not.
    """
    if name in INPUTS or _field(name) is not None or any(_hyperparameter(name)):
        return
    known = [*INPUTS, *_names(FitConfig)]
    for method in METHODS:
        known += [f"{method}.{each}" for each in METHODS.get(method).hyperparameters.model_fields]
    near = get_close_matches(name, known, 3)
    raise ConfigError(
        "no such field of a fit",
        seen=name,
        do=f"perhaps {' or '.join(near)}" if near else "see fit --help-all",
    )


def _names(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """Yield the fields of a configuration, those of a model in it as `lora.rank`."""
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _names(kind, f"{before}{name}.")
        elif name != "hyperparameters":
            yield f"{before}{name}"


def _field(name: str) -> Any:
    """Return what pydantic knows about a field of `FitConfig`; None if there is no such field."""
    if name not in set(_names(FitConfig)):
        return None
    model: Any = FitConfig
    *outer, last = name.split(".")
    for part in outer:
        model = model.model_fields[part].annotation
    return model.model_fields[last]


def _hyperparameter(name: str) -> Iterator[bool]:
    """Yield for each method whether this is a hyperparameter of it."""
    first, dot, field = name.partition(".")
    for method in METHODS:
        fields = METHODS.get(method).hyperparameters.model_fields
        yield (first == method and field in fields) if dot else name in fields


def _flags(name: str, value: Any) -> list[str]:
    """Return the flags that give a field its value."""
    field = _field(name)
    text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if field is None:
        return ["--set", f"{name}={text}"]
    flag = name.replace(".", "-").replace("_", "-")
    if field.annotation is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{name} is true or false", seen=value)
        return [f"--{'' if text.lower() == 'true' else 'no-'}{flag}"]
    return [f"--{flag}", text]


def _name(values: Mapping[str, Any]) -> str:
    """Return a name for a folder, made from the values; different values have different names."""
    exact = ",".join(f"{name}={value}" for name, value in values.items())
    name = re.sub(r"[^A-Za-z0-9._=,+-]+", "-", exact)
    if name == exact and len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}-{hashlib.blake2b(exact.encode(), digest_size=4).hexdigest()}"
