"""`editloop demo-real`: the whole loop on a real base, with texts before and after."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editloop.cli.console import called, console, show_table, shown_progress
from editloop.cli.flags import Config, Device, Dtype
from editloop.cli.places import Place
from editloop.cli.user_flags import DomainName

if TYPE_CHECKING:
    from editloop.lab.demo import RealDemoResult

SHOWN = 3
"""The contexts whose texts are shown before and after."""

WIDTH = 78
"""The width of a text on the terminal."""


def demo_real(
    out: Annotated[
        Path, typer.Option(help="Folder for everything; run again, the demo goes on."), Place.WRITTEN
    ] = Path("demo-real"),
    base: Annotated[str, typer.Option(help="The base: a hub name, a folder, a GGUF file.")] = "smollm2",
    log: Annotated[
        Path | None,
        typer.Option(help="A log of real edits in place of a rule user's, with at least 32 contexts."),
        Place.READ,
    ] = None,
    domain: DomainName = "email",
    user: Annotated[
        str, typer.Option(help="Who edits: strong, weak, light, medium, heavy, other.")
    ] = "strong",
    methods: Annotated[
        str | None,
        typer.Option(help="The methods to train, such as sft,early; each takes some minutes more [sft]."),
    ] = None,
    rows: Annotated[int, typer.Option(min=8, help="Rows of the rule user's log.")] = 96,
    responses: Annotated[
        int, typer.Option(min=2, help="Contexts that every policy answers at the end.")
    ] = 16,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds in which LateEnsemble chooses.")] = 24,
    seed: Annotated[int, typer.Option(help="The seed of contexts, drafts and edits.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    config: Config = None,
) -> None:
    """Run the verb."""
    from editloop.edits import read_log
    from editloop.lab.demo import RealDemoSettings, run_real_demo
    from editloop.policy import load_base

    chosen = [name.strip() for name in (methods or "").split(",") if name.strip()]
    settings = RealDemoSettings()
    settings = replace(
        settings,
        config=settings.config.changed({"methods": chosen} if chosen else {}),
        rows=rows,
        responses=responses,
        rounds=rounds,
        domain=domain,
        user=user,
        seed=seed,
    )
    given = None if log is None else read_log(log)
    with shown_progress() as callback:
        loaded = load_base(base, device=device, dtype=dtype)
        result = run_real_demo(loaded, out, settings, log=given, callback=callback)
    _show_texts(result)
    _show_costs(result)
    console.print(f"\nTry it: {called()} serve {out / 'run'} --store {out / 'edits.db'}")


def _show_texts(result: RealDemoResult) -> None:
    """Print contexts with the base's draft and that of the best policy."""
    before, after = result.costs["base"], result.costs[result.best]
    for i, context in enumerate(before.contexts[:SHOWN]):
        console.print(f"\n{'=' * WIDTH}\n{_folded(context)}")
        for name, found in (("base", before), (result.best, after)):
            end = "" if found.well_formed[i] else ", cut"
            console.print(f"\n--- {name}: cost {found.costs[i]:.2f}{end} ---\n{_folded(found.responses[i])}")


def _show_costs(result: RealDemoResult) -> None:
    """Print what the drafts of the base and of each policy cost."""
    n = len(result.costs["base"].contexts)
    what = "turning a draft into the edit" if result.online is None else "an edit"
    console.print(
        f"\n{'=' * WIDTH}\nMean cost of {what}, {n} contexts that are in no log ({result.seconds:.0f} s)"
    )
    rows = [["policy", "cost", "finished"]]
    for name, found in result.costs.items():
        rows.append(
            [name, f"{found.mean:.3f} ± {found.standard_error:.3f}", f"{found.share_well_formed:.0%}"]
        )
    if result.online is not None:
        rows.append(["LateEnsemble", f"{result.online.mean:.3f} by round", ""])
    show_table(rows)


def _folded(text: str) -> str:
    """The text with lines that fit the terminal."""
    return "\n".join(textwrap.fill(line, WIDTH) for line in text.strip().split("\n"))
