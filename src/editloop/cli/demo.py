"""`editloop demo`: the whole loop on the embedded lab."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editloop.cli.console import called, console, show_table, shown_progress
from editloop.cli.flags import Config
from editloop.cli.places import Place
from editloop.cli.user_flags import DomainName


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the logs, the runs and the report."), Place.WRITTEN
    ] = Path("demo"),
    domain: DomainName = "email",
    full: Annotated[
        bool, typer.Option("--full", help="Rows and passes of the paper's tables, in about twice the time.")
    ] = False,
    rows: Annotated[int | None, typer.Option(min=2, help="Rows of each user's log.")] = None,
    responses: Annotated[
        int | None, typer.Option(min=2, help="Fresh contexts that each policy answers.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over each log.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the logs and the evaluation.")] = 0,
    config: Config = None,
) -> None:
    """Run the verb."""
    from dataclasses import replace

    from editloop.lab.demo import full_settings, quick_settings, run_demo
    from editloop.parallel import cores

    settings = full_settings(domain) if full else quick_settings(domain)
    changes = {} if epochs is None else {"epochs": epochs}
    settings = replace(
        settings,
        rows=settings.rows if rows is None else rows,
        responses=settings.responses if responses is None else responses,
        config=settings.config.changed(changes),
        seed=seed,
    )
    with shown_progress() as callback:
        result = run_demo(out, settings, parallel=cores() > 1, callback=callback)
    console.print(
        f"\nMean edit cost on {settings.responses} fresh contexts, lower is better ({result.seconds:.0f} s)"
    )
    show_table(result.table())
    console.print("\nWith your own log:")
    columns = "--map context=prompt,response=draft,edit=final"
    for command in ("inspect LOG", "fit LOG --base MODEL --out run", "evaluate run HELD_OUT_LOG"):
        console.print(f"  {called()} {command} \\\n    {columns}")
    console.print("Other users and algorithms, online:")
    console.print(f"  {called()} simulate {out}/weak --domain {domain} \\")
    console.print("    --user other --algorithm thompson")
    console.print(f"\nReport: {result.report}")
    console.print(result.verdict.headline)
