"""Flags made from a configuration: one for each field, with the field's own help and default.

A verb that is configured by a model has a parameter `given`. `configured` replaces it by a flag for every
field, so that nothing about a field is written twice. It works on the signature of the verb, because that is
where Typer finds the flags. A flag that was not typed gives no value, so that the configuration's own
default, range and messages apply. `short_help` limits the help of such a verb to the flags that most people
need; `--help-all` shows all, by section.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from functools import wraps
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

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
    make: Callable[[dict[str, Any]], Any] = dict,
    *,
    nested: Mapping[str, str] | None = None,
    skip: Collection[str] = (),
) -> Callable[[Verb], Verb]:
    """Put flags in place of the parameter `given` of a verb.

    Args:
        model: The configuration. A field that is a model itself gives a flag for each of its fields, such as
            `--lora-rank`; one that is `flat` gives them without its name.
        make: Makes what the verb gets as `given` from the values that the user gave, by field.
        nested: The fields whose values are mappings, and the flag of each. The flag may be repeated, each
            time with `name.field=value,value`; `make` gets the list of these texts, for `parse_settings`.
        skip: The fields that have no flag.
    """
    nested = nested or {}
    without = {*skip, *nested}

    def decorate(verb: Verb) -> Verb:
        signature = inspect.signature(verb, eval_str=True)  # modules have their annotations as texts
        own = list(_fields(model, without))
        flags = [*map(_flag, own), *(_set_flag(model, name, flag) for name, flag in nested.items())]
        parameters: list[inspect.Parameter] = []
        for name, parameter in signature.parameters.items():
            # By keyword only, so that parameters with a default may come before those without one.
            keyword = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            parameters += flags if name == "given" else [keyword]

        def configuration(typed: Mapping[str, Any]) -> Any:
            """Return the configuration that the flags make, by the parameters of the verb."""
            values = _values(own, typed)
            return make(values | {name: typed[name] for name in nested if typed[name]})

        @wraps(verb)
        def expanded(**options: Any) -> None:
            typed = {flag.name: options.pop(flag.name) for flag in flags}
            verb(given=configuration(typed), **options)

        expanded.configuration = configuration  # type: ignore[attr-defined]
        expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        expanded.common_flags = {field.flag for field in own if field.common} | {*nested}  # type: ignore[attr-defined]
        expanded.flag_of_path = {field.path: field.flag for field in own}  # type: ignore[attr-defined]
        return expanded

    return decorate


class _Field(NamedTuple):
    """A field of a configuration, or of a model in it, and its flag.

    Attributes:
        flag: The parameter of the flag, `lora_rank`.
        path: The names that lead to the field, `("lora", "rank")`.
        info: What pydantic knows about the field.
        section: The heading under which the help shows it.
        common: Whether the short help shows it.
    """

    flag: str
    path: tuple[str, ...]
    info: FieldInfo
    section: str
    common: bool


def _fields(
    model: type[BaseModel],
    skip: Collection[str] = (),
    prefix: str = "",
    path: tuple[str, ...] = (),
    section: str = "",
) -> Iterator[_Field]:
    """Yield the fields of a model, and in its place those of a model in it, which inherit its section."""
    for name, info in model.model_fields.items():
        if name in skip:
            continue
        extra = _extra(info)
        panel = str(extra.get("section") or section)
        kind = info.annotation
        if inspect.isclass(kind) and issubclass(kind, BaseModel):
            # `lora.rank` is `--lora-rank`, but the fields of a `flat` model are flags by their own names.
            inner = prefix if extra.get("flat") else f"{prefix}{name}_"
            yield from _fields(kind, skip, inner, (*path, name), panel)
        else:
            yield _Field(f"{prefix}{name}", (*path, name), info, panel, bool(extra.get("common")))


def _extra(info: FieldInfo) -> Mapping[str, Any]:
    """Return what `editloop.configuration.setting` added to a field; nothing for a field of another kind."""
    return info.json_schema_extra if isinstance(info.json_schema_extra, Mapping) else {}


def _flag(field: _Field) -> inspect.Parameter:
    """Return a field's flag as a parameter. Its default is None, which means that no value was given."""
    option = _option(field.flag, field.info)
    option.rich_help_panel = field.section
    kind = _scalar(field.info) | None
    return inspect.Parameter(
        field.flag, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def _option(name: str, field: FieldInfo) -> Any:
    """Return the option of a flag: its help with the default, and the values that it may have."""
    flag, choices = f"--{name.replace('_', '-')}", _choices(field)
    default = _shown(field.default)
    text = f"{field.description or ''}{f' [{default}]' if default else ''}"
    metavar = "|".join(choices) if len(_types(field)) == 1 and choices else None
    return typer.Option(flag, help=text, metavar=metavar)


def _set_flag(model: type[BaseModel], name: str, flag: str) -> inspect.Parameter:
    """Return the repeated flag of a field that is a mapping."""
    field = model.model_fields[name]

    def merged(context: typer.Context, values: list[str]) -> list[str]:
        """Return the values of a configuration file and then those of the command line, which win.

        If nothing was typed, Typer gives those of the file as `values`.
        """
        before = (context.default_map or {}).get(name) or []
        return [*before, *values] if values != before else values

    option = typer.Option(
        flag,
        metavar="NAME.FIELD=VALUES",
        callback=merged,
        help=f"{field.description} May be repeated: {flag} dpo.beta=0.1,1.",
    )
    option.rich_help_panel = str(_extra(field).get("section", ""))
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=[], annotation=Annotated[list[str], option]
    )


def _types(field: FieldInfo) -> tuple[Any, ...]:
    """Return the types that a field may have, without None."""
    kind = field.annotation
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return tuple(part for part in parts if part is not type(None))


def _choices(field: FieldInfo) -> tuple[str, ...]:
    """Return the values of a field that is a `Literal`."""
    return next((get_args(part) for part in _types(field) if get_origin(part) is Literal), ())


def _scalar(field: FieldInfo) -> Any:
    """Return the type of a flag: a number or a switch, and a text for everything else, lists included."""
    part = _types(field)[0]
    return part if part in (int, float, bool) else str


def _shown(default: object) -> str:
    """Return a default as the help shows it; nothing for None and for a switch."""
    if isinstance(default, tuple | list):
        return ",".join(map(str, default))
    if default is None or isinstance(default, bool):
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default)


def _values(fields: Sequence[_Field], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that were given as values of the model's fields."""
    values: dict[str, Any] = {}
    for field in fields:
        value, kinds = given[field.flag], _types(field.info)
        if value is None:
            continue
        # A text becomes a list if the field is one; of a field that may also be a text, only if it has a
        # comma.
        is_list = any(get_origin(kind) is tuple for kind in kinds)
        if is_list and isinstance(value, str) and ("," in value or str not in kinds):
            value = tuple(part.strip() for part in value.split(",") if part.strip())
        *outer, name = field.path
        home = values
        for part in outer:
            home = home.setdefault(part, {})
        home[name] = value
    return values


def parse_settings(given: list[str], flag: str) -> dict[str, tuple[str, ...]]:
    """Return texts `name.field=value,value` as values by `name.field`; of two with one name the later wins.

    Raises:
        ConfigError: A text has no name, no `=` or no value.
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
    """Hide all flags of a verb from its help except these and the common ones of its configuration.

    `--help-all`, which is added to the verb, shows all of them.
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


def _hidden(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return the parameter with its option hidden from the help."""
    kind, *more = get_args(parameter.annotation) or (parameter.annotation,)
    changed = []
    for each in more:
        if isinstance(each, OptionInfo):
            each = copy(each)  # other verbs may share it, and show it
            each.hidden = True
        changed.append(each)
    return parameter.replace(annotation=Annotated[(kind, *changed)] if changed else parameter.annotation)


def _help_all(context: typer.Context, value: bool) -> None:
    """Print the help with all flags, and end."""
    if value:
        for parameter in context.command.params:
            if hasattr(parameter, "hidden"):
                parameter.hidden = False
        typer.echo(context.get_help())
        raise typer.Exit


class SectionedCommand(TyperCommand):
    """A command whose help has a section for each panel of its flags.

    Typer knows panels only in its help by `rich`, which the command does not use.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the flags without a section, then those of each section."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                name, text = record
                sections["Arguments"].append((name.partition(" <")[0], text))  # without its type: LOG, RUN
                continue
            panel = getattr(parameter, "rich_help_panel", None) or "Options"
            sections.setdefault(panel, []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
