"""`editloop demo`: the whole loop on the embedded lab."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editloop.cli.console import called, console, show_table, shown_progress
from editloop.cli.flags import Config
from editloop.cli.places import Place


def demo(
    out: Annotated[Path, typer.Option(help="Folder for all that it makes."), Place.WRITTEN] = Path("demo"),
    rows: Annotated[int, typer.Option(min=2, help="Rows of each user's log.")] = 1500,
    responses: Annotated[int, typer.Option(min=2, help="Fresh contexts that each policy answers.")] = 200,
    epochs: Annotated[float | None, typer.Option(help="Passes over each log.")] = None,
    seed: Annotated[int, typer.Option(help="Of logs and evaluation.")] = 0,
    config: Config = None,
) -> None:
    """Run the verb."""
    from editloop.lab import fit_settings
    from editloop.lab.demo import run_demo
    from editloop.offline import make_fit_config

    given = {} if epochs is None else {"epochs": epochs}
    fit_config = make_fit_config(**fit_settings("email").model_dump() | given)
    with shown_progress() as callback:
        result = run_demo(
            out, rows=rows, responses=responses, seed=seed, config=fit_config, callback=callback
        )
    console.print(f"\nMean edit cost on {responses} fresh contexts, lower is better ({result.seconds:.0f} s)")
    show_table(result.table())
    console.print(f"\nReport: {result.report}")
    console.print("With your own log:")
    columns = "--map context=prompt,response=draft,edit=final"
    console.print(f"  {called()} inspect LOG {columns}")
    console.print(f"  {called()} fit LOG {columns} --base MODEL --out run")
    console.print(f"  {called()} evaluate run HELD_OUT_LOG {columns}")
    console.print("Other users and algorithms, online:")
    console.print(f"  {called()} simulate {out}/weak --user other --algorithm thompson")
