"""`editloop theory NAME`: the paper's claims as experiments in worlds where everything is known."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from editloop.cli.console import console, shown_progress
from editloop.cli.flags import Config
from editloop.cli.places import Place
from editloop.errors import ConfigError

CLAIMS = ("contraction", "rates", "regret", "solutions", "violations", "winners")


def theory(
    name: Annotated[str, typer.Argument(metavar="NAME", help=", ".join(CLAIMS))],
    out: Annotated[Path, typer.Option(help="Folder for the results."), Place.WRITTEN] = Path("theory"),
    seed: Annotated[int, typer.Option(help="The seed of everything that is drawn.", min=0)] = 0,
    config: Config = None,
) -> None:
    """Run the verb."""
    if name not in CLAIMS:
        raise ConfigError("unknown claim", seen=name, do=f"choose one of {', '.join(CLAIMS)}")
    with shown_progress() as callback:
        import_module(f"editloop.theory.claims.{name}").run(out, seed=seed, callback=callback)
    console.print((out / f"{name}.md").read_text(encoding="utf-8"))
