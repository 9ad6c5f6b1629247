"""`editloop bench NAME`: measurements against other libraries and on real edits, with their results kept."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from editloop.cli.console import console, shown
from editloop.cli.flags import Config
from editloop.cli.places import Place
from editloop.errors import ConfigError

BENCHES = {
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


def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help=", ".join(BENCHES))],
    out: Annotated[Path, typer.Option(help="Folder for the results."), Place.WRITTEN] = Path(
        "benchmarks/results"
    ),
    sizes: Annotated[str | None, typer.Option(help="For train-speed with a GPU: 0.5b,1.5b,3b,8b")] = None,
    config: Config = None,
) -> None:
    """Run the verb."""
    if name not in BENCHES:
        raise ConfigError("unknown benchmark", seen=name, do=f"choose one of {', '.join(BENCHES)}")
    if sizes is not None and name != "train-speed":
        raise ConfigError("only train-speed takes --sizes", seen=sizes, do="leave it out")
    named = [size.strip() for size in (sizes or "").split(",") if size.strip()]
    options = {"sizes": named} if named else {}
    with shown() as listener:
        module, _, function = BENCHES[name].partition(":")
        getattr(import_module(f"editloop.bench.{module}"), function)(out, listener=listener, **options)
    written = max(out.glob(f"{name}*.md"), key=lambda page: page.stat().st_mtime)
    console.print(written.read_text(encoding="utf-8"))
