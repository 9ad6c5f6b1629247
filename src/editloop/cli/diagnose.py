"""`editloop diagnose LOG`: what a log says about its users, and which method to train."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from editloop.cli.console import console, show_table, shown_progress
from editloop.cli.flags import Config, CostName, Device, Dtype, LogPath, TrustRemoteCode
from editloop.cli.places import Place, stem
from editloop.cli.reading import Reading, reads
from editloop.io import write_json

if TYPE_CHECKING:
    from editloop.diagnosis import Diagnosis


@reads
def diagnose(
    log: LogPath,
    reading: Reading,
    base: Annotated[
        str | None, typer.Option(help="Hub name or folder of the base, for its likelihoods and features.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The JSON file to write [LOG-diagnosis.json]."), Place.WRITTEN
    ] = None,
    cost: CostName = None,
    seed: Annotated[int, typer.Option(help="Seed of resampling.", min=0)] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    trust_remote_code: TrustRemoteCode = False,
    config: Config = None,
) -> None:
    """Run the verb."""
    from editloop.diagnosis import diagnose as diagnose_log

    file = out or Path(f"{stem(log)}-diagnosis.json")
    with shown_progress() as callback:
        records = reading.read(log, file, callback)
        policy = None
        if base is not None:
            from editloop.policy import load_base

            policy = load_base(base, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
            for line in policy.decisions:
                callback.message(line)
        found = diagnose_log(tuple(records), base=policy, cost=cost, seed=seed, callback=callback)
    print_diagnosis(found)
    write_json(file, found.to_json())
    console.print(f"\nWritten to {file}")


def print_diagnosis(found: Diagnosis) -> None:
    """Print a diagnosis, as wide as the terminal."""
    console.print(f"{found.rows} rows, {found.answered} edited or accepted; costs by {found.cost}\n")
    known = [(each, each.estimate) for each in found.findings if each.estimate is not None]
    rows = [["", "estimate", "95%", "from"]]
    for each, (value, low, high, n) in known:
        rows.append([each.name, f"{value:.2f}", _span(low, high), f"{n:,}"])
    show_table(rows)
    console.print()
    for each, _ in known:
        _print_item(f"{each.name}: {each.explanation}")
    if missing := [each for each in found.findings if each.estimate is None]:
        console.print("\nWhat this log cannot tell")
        for each in missing:
            needs = f" (log or give: {each.needs})" if each.needs else ""
            _print_item(f"{each.name}: {each.explanation}{needs}")
    advice = found.advice
    console.print(f"\nTrain {advice.method} (confidence: {advice.confidence})")
    for reason in advice.reasons:
        _print_item(reason)
    _print_item("serve it beside the others: LateEnsemble corrects a wrong guess within some hundred rounds")


def _span(low: float, high: float) -> str:
    """Return an interval as text; observations that are all the same have none."""
    return f"{low:.2f} to {high:.2f}" if high > low else "all alike"


def _print_item(text: str) -> None:
    """Print an item of an indented list."""
    console.print(fill(text, console.width, initial_indent="  ", subsequent_indent="    "))
