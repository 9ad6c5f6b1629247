"""The flags that several verbs share, and `--config`, which reads any of a verb's flags from a file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from glob import has_magic
from pathlib import Path
from typing import Annotated, Any

import typer

from editloop.cli.places import Place
from editloop.configuration import read_yaml
from editloop.edits.cost import DEFAULT_COST
from editloop.errors import ConfigError


def _located(log: str) -> Any:
    """Return the path of a log, or its address, from the text of a flag."""
    if "://" not in log and not has_magic(log):  # without the import below, which takes a while
        return Path(log)
    from editloop.edits import locate

    return locate(log)


LogPath = Annotated[
    Any,
    typer.Argument(
        metavar="LOG",
        parser=_located,
        help="JSONL, CSV, TSV, Parquet, a folder or glob of Parquet files, s3://bucket/log, a datasets "
        "folder, - for standard input, or a server's store: sqlite:///edits.db",
    ),
    Place.READ,
]
StoreUrl = Annotated[
    str,
    typer.Option(
        "--store", help="The store: sqlite:///edits.db, a file's path, or postgresql://user@host/name"
    ),
]
CostName = Annotated[
    str | None,
    typer.Option(
        "--cost",
        help="What an edit costs: levenshtein:word|char|code/response|edit|longest|none, "
        f"alignment:word|char|code, ter:word/edit ..., semantic:ENCODER, or one of your own [{DEFAULT_COST}]",
    ),
]
Base = Annotated[
    str,
    typer.Option(
        help="Hub name or folder of a causal LM, a GGUF file, smollm2, lab:email, lab:summary or lab:code."
    ),
]
Device = Annotated[str, typer.Option(help="Where the model runs: auto, cpu, cuda, cuda:1, mps")]
Dtype = Annotated[str, typer.Option(help="The precision of the weights: auto, float32, bfloat16, float16")]
Quantize = Annotated[str | None, typer.Option(help="4bit loads the base in NF4 with bitsandbytes.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the base.")
]


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Use the values of a YAML file as the defaults of a verb's flags; a flag on the command line wins.

    The flag `--config` is eager, so this runs before the other flags look for their defaults.

    Raises:
        ConfigError: The file cannot be read, or does not map flags of the verb to values.
    """
    if path is None:
        return None
    content = read_yaml(path, "configuration")
    if not isinstance(content, dict):
        raise ConfigError("the configuration is not a mapping of flags to values", seen=content)
    known = {p.name: p for p in context.command.params if p.name not in ("config", "help", "help_all")}
    values: dict[str, Any] = {}
    # Typer's callback has the attributes of the verb that it wraps, hence those of `configured`, too.
    flag_of_path = getattr(context.command.callback, "flag_of_path", {})
    for key, value in _flattened(content, known, flag_of_path):
        name = str(key).replace("-", "_")
        if name not in known:
            raise ConfigError(
                "unknown flag in the configuration", seen=key, do=f"choose one of {', '.join(sorted(known))}"
            )
        if getattr(known[name], "multiple", False) or known[name].nargs != 1:
            values[name] = _as_list(value)
        else:
            values[name] = _as_flag(name, value)
    context.default_map = {**(context.default_map or {}), **values}
    return path


def _flattened(
    content: dict[Any, Any], known: Collection[str], flag_of_path: Mapping[tuple[str, ...], str]
) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a configuration by flag: `lora: {rank: 8}` becomes `lora_rank: 8`.

    A mapping that is the value of a flag itself, such as `hyperparameters`, stays whole.
    """
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name in known or not isinstance(value, dict):
            yield str(key), value
            continue
        for part, inner in value.items():
            path = (name, str(part).replace("-", "_"))
            yield flag_of_path.get(path, f"{key}.{part}"), inner


def _as_list(value: Any) -> list[str]:
    """Return a YAML value as the texts that a repeated flag would be given.

    `{dpo: {beta: [0.1, 1]}}` gives `dpo.beta=0.1,1`, and `{beta: 0.1}` gives `beta=0.1`.
    """
    if isinstance(value, dict):
        texts: list[str] = []
        for name, each in value.items():
            if isinstance(each, dict):
                texts += [f"{name}.{field}={_as_flag(field, one)}" for field, one in each.items()]
            else:
                texts.append(f"{name}={_as_flag(name, each)}")
        return texts
    return [str(item) for item in (value if isinstance(value, list) else [value])]


def _as_flag(name: str, value: Any) -> Any:
    """Return a YAML list or mapping as the text that would be typed for the flag of that name."""
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    if isinstance(value, dict):
        parts = [f"{key}={_as_flag(name, item)}" for key, item in value.items()]
        return ("," if name == "map" else ";").join(parts)
    return value


# A verb has this parameter only for the flag: `read_config` does all that the flag is for.
Config = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file of flags and values.", callback=read_config, is_eager=True),
    Place.READ,
]
