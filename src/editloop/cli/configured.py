"""Flags made of a configuration: each field is one, with the field's own help, range and default.

A verb that is configured by a model has a parameter `given`; `configured` puts a flag for every field in its
place, so that nothing about a field is written twice. `short_help` keeps the help of such a verb to the
flags that most people need; `--help-all` shows the others, by section.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import copy
from functools import wraps
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.core import TyperCommand
from typer.models import OptionInfo

from editloop.errors import ConfigError

__all__ = ["SectionedCommand", "configured", "parse_settings", "short_help"]

Verb = Callable[..., None]


def configured(
    model: type[BaseModel],
    make: Callable[..., Any] = dict,
    *,
    nested: Mapping[str, str] | None = None,
    skip: Collection[str] = (),
) -> Callable[[Verb], Verb]:
    """Put flags in place of the parameter `given` of a verb.

    Args:
        model: The configuration. Fields that are models themselves give a flag for each of their fields,
            `--lora-rank`.
        make: Makes of the values that were given, by field, what the verb gets.
        nested: Fields whose values are mappings, and the flag of each. It may be repeated, each time with
            `name.field=value,value`; `make` gets what was given, by field, as its second argument.
        skip: Fields without a flag.
    """
    nested = nested or {}
    without = {*skip, *nested}

    def decorate(verb: Verb) -> Verb:
        signature = inspect.signature(verb, eval_str=True)
        flags = [
            *_flags(model, skip=without),
            *(_set_flag(model, name, flag) for name, flag in nested.items()),
        ]
        parameters: list[inspect.Parameter] = []
        for name, parameter in signature.parameters.items():
            keyword = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            parameters += flags if name == "given" else [keyword]

        @wraps(verb)
        def expanded(**options: Any) -> None:
            typed = {flag.name: options.pop(flag.name) for flag in flags}
            values = _values(model, typed, skip=without)
            settings = [{name: typed[name] for name in nested if typed[name]}] if nested else []
            verb(given=make(values, *settings), **options)

        expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        expanded.common_flags = {*_common(model), *nested}  # type: ignore[attr-defined]
        return expanded

    return decorate


def _flags(
    model: type[BaseModel], *, prefix: str = "", section: str = "", skip: Collection[str] = ()
) -> Iterator[inspect.Parameter]:
    for name, field in model.model_fields.items():
        if name in skip:
            continue
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, Mapping) else {}
        panel = str(extra.get("section", section))
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            yield from _flags(field.annotation, prefix=f"{prefix}{name}_", section=panel)
            continue
        option = _option(f"{prefix}{name}", field)
        option.rich_help_panel = panel
        kind, default = (bool, False) if field.annotation is bool else (_scalar(field) | None, None)
        yield inspect.Parameter(
            f"{prefix}{name}",
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind, option],
        )


def _option(name: str, field: FieldInfo) -> Any:
    flag, choices = f"--{name.replace('_', '-')}", _choices(field)
    default = _shown(field.default)
    text = f"{field.description or ''}{f' [{default}]' if default else ''}"
    metavar = "|".join(choices) if len(_alternatives(field)) == 1 and choices else None
    return typer.Option(flag, help=text, metavar=metavar)


def _set_flag(model: type[BaseModel], name: str, flag: str) -> inspect.Parameter:
    field = model.model_fields[name]

    def merged(context: typer.Context, values: list[str]) -> list[str]:
        """Those of a configuration file come first, so that the command line has the last word."""
        before = (context.default_map or {}).get(name) or []
        return [*before, *values] if values != before else values

    option = typer.Option(
        flag,
        metavar="NAME.FIELD=VALUES",
        callback=merged,
        help=f"{field.description} May be repeated: {flag} dpo.beta=0.1,1.",
    )
    option.rich_help_panel = str((field.json_schema_extra or {}).get("section", ""))  # type: ignore[union-attr]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=[], annotation=Annotated[list[str], option]
    )


def _alternatives(field: FieldInfo) -> tuple[Any, ...]:
    """The types that a field may have, without None."""
    kind = field.annotation
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return tuple(part for part in parts if part is not type(None))


def _choices(field: FieldInfo) -> tuple[str, ...]:
    return next((get_args(part) for part in _alternatives(field) if get_origin(part) is Literal), ())


def _scalar(field: FieldInfo) -> Any:
    """The type of a flag: numbers are numbers, lists are divided by commas."""
    part = _alternatives(field)[0]
    return part if part in (int, float) else str


def _shown(default: object) -> str:
    if isinstance(default, tuple | list):
        return ",".join(map(str, default))
    return (
        ""
        if default is None or isinstance(default, bool)
        else f"{default:g}"
        if isinstance(default, float)
        else str(default)
    )


def _values(
    model: type[BaseModel], given: Mapping[str, Any], *, prefix: str = "", skip: Collection[str] = ()
) -> dict[str, Any]:
    """The flags that were given, as values of the model's fields."""
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if name in skip:
            continue
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            own = _values(field.annotation, given, prefix=f"{prefix}{name}_")
            if own:
                values[name] = own
            continue
        value = given[f"{prefix}{name}"]
        if value is None or (field.annotation is bool and value is field.default):
            continue
        is_list = any(get_origin(part) is tuple for part in _alternatives(field))
        if is_list and isinstance(value, str) and ("," in value or str not in _alternatives(field)):
            value = tuple(part.strip() for part in value.split(",") if part.strip())
        values[name] = value
    return values


def parse_settings(given: list[str], flag: str) -> dict[str, tuple[str, ...]]:
    """`name.field=value,value` as values by `name.field`; a later one of the same name replaces the earlier.

    Raises:
        ConfigError: One has no `=`, or no value.
    """
    found = {}
    for text in given:
        name, equals, values = text.partition("=")
        parts = tuple(part.strip() for part in values.split(",") if part.strip())
        if not (name.strip() and equals and parts):
            raise ConfigError(f"{flag} wants NAME.FIELD=VALUES", seen=text, do="as in dpo.beta=0.1,1")
        found[name.strip()] = parts
    return found


def short_help(*common: str) -> Callable[[Verb], Verb]:
    """Hide the flags of a verb from its help, but for these and the common ones of its configuration.

    `--help-all` shows them.
    """

    def decorate(verb: Verb) -> Verb:
        signature = inspect.signature(verb, eval_str=True)
        shown = {*common, *getattr(verb, "common_flags", ())}
        parameters = [each if each.name in shown else _hidden(each) for each in signature.parameters.values()]
        everything = inspect.Parameter(
            "help_all",
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[
                bool,
                typer.Option(
                    "--help-all", is_eager=True, callback=_help_all, help="Show every flag and exit."
                ),
            ],
        )

        @wraps(verb)
        def visible(*, help_all: bool = False, **options: Any) -> None:
            verb(**options)

        visible.__signature__ = inspect.Signature([*parameters, everything])  # type: ignore[attr-defined]
        return visible

    return decorate


def _common(model: type[BaseModel]) -> Iterator[str]:
    """The fields that short help shows."""
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, Mapping) and extra.get("common"):
            yield name


def _hidden(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter with its option hidden."""
    kind, *more = get_args(parameter.annotation) or (parameter.annotation,)
    changed = []
    for each in more:
        if isinstance(each, OptionInfo):
            each = copy(each)  # another verb may have the same
            each.hidden = True
        changed.append(each)
    return parameter.replace(annotation=Annotated[(kind, *changed)] if changed else parameter.annotation)


def _help_all(context: typer.Context, value: bool) -> None:
    if value:
        for parameter in context.command.params:
            if hasattr(parameter, "hidden"):
                parameter.hidden = False
        typer.echo(context.get_help())
        raise typer.Exit


class SectionedCommand(TyperCommand):
    """A command whose help has a section for each panel of its flags."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then the flags without a section, then those of each."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                name, text = record
                sections["Arguments"].append((name.partition(" <")[0], text))  # its name says what it is
                continue
            panel = getattr(parameter, "rich_help_panel", None) or "Options"
            sections.setdefault(panel, []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
