"""The optional parts of an installation: which extra installs which library, and the error if it is missing.

`pip install editloop` installs what reads logs, computes costs, chooses among policies and calls a server.
Everything heavier belongs to an extra, and is imported where it is used. The message about a missing library
is the same wherever the import fails:

- code of the light packages calls `requires` before it imports such a library;
- modules that are found by name (those of the heavy packages, and the built-in parts of a registry) are
  imported by `load_module`;
- the command's `main` handles the ModuleNotFoundError of a verb by `missing_extra`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

from editloop.errors import MissingExtraError

__all__ = ["EXTRAS", "Extra", "load_module", "missing_extra", "requires"]


class Extra(NamedTuple):
    """An optional part of the installation.

    Attributes:
        purpose: What it is for. The message continues it: "PURPOSE needs torch, which is not installed".
        modules: The modules that only this extra installs, by the names under which they are imported. The
            message names the first of them that is missing.
    """

    purpose: str
    modules: tuple[str, ...]


EXTRAS = {
    "parquet": Extra("reading and writing Parquet and zstd", ("pyarrow",)),
    "large": Extra("logs that are larger than memory, or in an object store,", ("duckdb", "fsspec")),
    "s3": Extra("logs in S3", ("s3fs",)),
    "datasets": Extra("reading and writing data sets in Hugging Face format", ("datasets",)),
    "docx": Extra("reading Word documents", ("defusedxml",)),
    "plots": Extra("drawing", ("matplotlib",)),
    "theory": Extra("the exact lab", ("scipy",)),
    "ter": Extra("the translation edit rate", ("sacrebleu",)),
    "train": Extra(
        "training and running policies",
        ("torch", "transformers", "peft", "accelerate", "safetensors", "jinja2"),
    ),
    "serve": Extra(
        "the server",
        (
            "aiohttp",
            "alembic",
            "fastapi",
            "filelock",
            "prometheus_client",
            "psycopg",
            "sqlalchemy",
            "starlette",
            "uvicorn",
        ),
    ),
    "otel": Extra(
        "OpenTelemetry",
        ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http", "opentelemetry.proto"),
    ),
    "embeddings": Extra("features by embeddings", ("wordllama",)),
    "llm": Extra("a user played by an LLM", ("openai",)),
    "semantic": Extra("the semantic cost", ("sentence_transformers",)),
    "smollm2": Extra("reading a GGUF file", ("gguf",)),
    "slurm": Extra("running jobs by Slurm", ("submitit",)),
    "quantized": Extra("a base in 4 bits", ("bitsandbytes",)),
}
"""The extras of pyproject.toml by name; a test compares the two."""


def requires(extra: str, *modules: str) -> None:
    """Check that the libraries of an extra are installed; nothing is imported.

    Args:
        extra: A name of `EXTRAS`.
        modules: The modules that are used; by default all of the extra's.

    Raises:
        MissingExtraError: One of them is not installed.
    """
    for module in modules or EXTRAS[extra].modules:
        if not _installed(module):
            raise _error(extra, module)


def load_module(name: str) -> ModuleType:
    """Import a module of this package that may need an extra.

    Raises:
        MissingExtraError: It imports a library that is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (missing := missing_extra(error)) is None:
            raise
        raise missing from error


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError | None:
    """Return the error that names the extra of a missing module; None if the module belongs to no extra.

    It is None, too, where the extra is installed and only a part of a library was not found: installing the
    extra would not help then.
    """
    root = (error.name or "").partition(".")[0]
    for name, extra in EXTRAS.items():
        if root in extra.modules:
            # Not `root`, which depends on what happened to be imported first: "torch" says more than "peft".
            return next((_error(name, each) for each in extra.modules if not _installed(each)), None)
    return None


def _error(extra: str, module: str) -> MissingExtraError:
    return MissingExtraError(
        f"{EXTRAS[extra].purpose} needs {module}, which is not installed",
        do=f"pip install 'editloop[{extra}]'",
    )


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # ValueError: an entry of sys.modules that was not imported from a file
        return False
