"""`python -m benchmarks NAME`: measurements beside other libraries and on real edits; the results are kept.

`make bench NAME=...` sets up what they need and runs this from the root of the repository.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from editloop.cli.console import console, fail, shown_progress
from editloop.errors import ConfigError, EditLoopError

BENCHMARKS = {
    "ablation": "sensitivity:ablation",
    "alpha": "sensitivity:alpha",
    "bandits": "bandits:run",
    "cost-speed": "cost_speed:run",
    "costs": "costs:run",
    "diagnosis": "diagnosis:run",
    "drift": "drift:run",
    "faults": "faults:run",
    "log-scale": "log_scale:run",
    "pessimism": "pessimism:run",
    "postedit": "postedit:run",
    "quality": "quality:run",
    "rl": "rl:run",
    "serve": "serving:run",
    "table1": "tables:table1",
    "table2": "tables:table2",
    "train-speed": "train_speed:run",
    "tune": "tune:run",
}
"""Module and function of each benchmark."""


def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help=", ".join(BENCHMARKS))],
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("benchmarks/results"),
    sizes: Annotated[str | None, typer.Option(help="For train-speed with a GPU: 0.5b,1.5b,3b,8b")] = None,
) -> None:
    """Run one benchmark and write NAME.json and NAME.md."""
    if name not in BENCHMARKS:
        raise ConfigError("unknown benchmark", seen=name, do=f"choose one of {', '.join(BENCHMARKS)}")
    if sizes is not None and name != "train-speed":
        raise ConfigError("only train-speed takes --sizes", seen=sizes, do="leave it out")
    named = [size.strip() for size in (sizes or "").split(",") if size.strip()]
    options = {"sizes": named} if named else {}
    with shown_progress() as callback:
        module, _, function = BENCHMARKS[name].partition(":")
        getattr(import_module(f"benchmarks.{module}"), function)(out, callback=callback, **options)
    written = max(out.glob(f"{name}*.md"), key=lambda page: page.stat().st_mtime)
    console.print(written.read_text(encoding="utf-8"))


def main() -> None:
    """Run the command; a user's error is one line and exit status 1."""
    warnings.simplefilter("ignore")
    try:
        typer.run(bench)
    except EditLoopError as error:
        fail(str(error))


if __name__ == "__main__":
    main()
