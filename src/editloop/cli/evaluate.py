"""`editloop evaluate RUN LOG`: held-out likelihood and preference accuracy of a run's policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from editloop.cli.console import console, show_table, shown, write_json
from editloop.cli.fit import reading_line
from editloop.cli.flags import Config, Device, Dtype, Format, LogPath, Map, MaxBadShare, Quantize, Quarantine


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    log: LogPath,
    samples: Annotated[int, typer.Option(help="Responses to sample from each policy.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    map: Map = None,
    format: Format = None,
    quarantine: Quarantine = None,
    max_bad_share: MaxBadShare = 0.05,
    config: Config = None,
) -> None:
    """Run the verb."""
    import editloop

    folder = editloop.RunFolder(run)
    folder.manifest()  # a wrong folder is told before anything is read
    with shown() as listener:
        records = editloop.read_log(
            log,
            map=map,
            format=format,  # type: ignore[arg-type]
            quarantine=quarantine,
            max_bad_share=max_bad_share,
            progress=lambda done, total: listener.progress("reading", done, total),
        )
        listener.say(reading_line(records.report))
        if records.report.sha256 == folder.manifest()["read"].get("sha256"):
            listener.say("warning: this is the log that the run was trained on; nothing here is held out")
        base = folder.load_base(device=device, dtype=dtype, quantize=quantize)
        for line in base.decisions:
            listener.say(line)
        result = editloop.evaluate(folder, records, base=base, samples=samples, seed=seed, listener=listener)
    file = run / f"evaluation-{log.stem}.json"
    write_json(file, {"log": {"path": str(log), "sha256": records.report.sha256}, **result})
    print_evaluation(result)
    console.print(f"\nWritten to {file}", markup=False)


def print_evaluation(result: dict[str, Any]) -> None:
    """The figures of every policy as a table."""
    keys = {
        "edit_nll_per_token": "loss per token",
        "accuracy": "accuracy",
        "reference_accuracy": "vs reference",
        "chosen_shift": "shift",
    }
    rows = [["policy", *keys.values()]]
    sampled = any("sampled" in figures for figures in result["policies"].values())
    if sampled:
        rows[0].append("sampled cost")
    for name, figures in result["policies"].items():
        cells = [_cell(figures.get(key)) for key in keys]
        if name == "base":
            cells[2:] = ["–", "–"]  # the base against itself
        if sampled:
            cells.append(_cell(figures["sampled"]["cost"]) if "sampled" in figures else "–")
        rows.append([name, *cells])
    console.print(f"\n{result['rows']} rows, {result['pairs']} pairs; mean ± standard error")
    show_table(rows)


def _cell(estimate: dict[str, float] | None) -> str:
    return f"{estimate['mean']:.3f} ±{estimate['se']:.3f}" if estimate else "–"
