"""`editloop bench NAME`: measurements against other libraries and on real edits, with their results kept."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from editloop.cli.console import console, shown
from editloop.cli.flags import Config
from editloop.errors import ConfigError

BENCHES = {
    "bandits": "editloop.bench.bandits",
    "cost-speed": "editloop.bench.cost_speed",
    "log-scale": "editloop.bench.log_scale",
    "postedit": "editloop.bench.postedit",
    "tune": "editloop.bench.tune",
    "train-speed": "editloop.bench.train_speed",
}


def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help=", ".join(BENCHES))],
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("benchmarks/results"),
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
        import_module(BENCHES[name]).run(out, listener=listener, **options)
    written = max(out.glob(f"{name}*.md"), key=lambda page: page.stat().st_mtime)
    console.print(written.read_text(encoding="utf-8"))
