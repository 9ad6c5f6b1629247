"""`editloop evaluate RUN LOG`: held-out likelihood and accuracies of a run's policies."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Annotated, Any

import typer

from editloop.cli.console import console, show_table, shown_progress
from editloop.cli.flags import Config, Device, Dtype, LogPath, Quantize, TrustRemoteCode
from editloop.cli.places import Place, files_of, stem
from editloop.cli.reading import Reading, reads
from editloop.io import guard_outputs, write_json


@reads
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder."), Place.READ],
    log: LogPath,
    reading: Reading,
    samples: Annotated[int, typer.Option(help="Responses to sample from each policy.")] = 0,
    seed: Annotated[int, typer.Option(help="The seed of the sampling.")] = 0,
    drop_seen: Annotated[
        bool, typer.Option("--drop-seen", help="Leave out the rows that the run was trained or validated on.")
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    trust_remote_code: TrustRemoteCode = False,
    config: Config = None,
) -> None:
    """Run the verb."""
    import editloop

    folder = editloop.RunFolder(run)
    folder.manifest()  # a wrong folder is reported before anything is read
    with shown_progress() as callback:
        records = reading.read(log, run / f"evaluation-{stem(log)}", callback)
        # With a part of the hash, so that two logs of one name do not replace each other's figures.
        file = run / f"evaluation-{stem(log)}-{str(records.report.sha256)[:8]}.json"
        guard_outputs(files_of(log), [file])
        base = folder.load_base(
            device=device, dtype=dtype, quantize=quantize, trust_remote_code=trust_remote_code
        )
        for line in base.decisions:
            callback.message(line)
        result = editloop.evaluate(
            folder, records, base=base, samples=samples, seed=seed, drop_seen=drop_seen, callback=callback
        )
    write_json(file, {"log": {"path": str(log), "sha256": records.report.sha256}, **result})
    print_evaluation(result)
    console.print(f"\nWritten to {file}")


def print_evaluation(result: dict[str, Any]) -> None:
    """Print the figures of every policy as a table."""
    from editloop.offline.report import (
        ACCURACIES,
        FIGURES,
        SAMPLED,
        cost_model_table,
        figures_note,
        off_policy_line,
        sampled_cells,
        show_estimate,
        show_weights,
    )
    from editloop.policy.manifest import SamplesRecord

    rows = [["policy", *FIGURES.values()]]
    sampled = any("sampled" in figures for figures in result["policies"].values())
    if sampled:
        rows[0] += SAMPLED
    for name, figures in result["policies"].items():
        cells = [show_estimate(figures.get(key)) for key in FIGURES]
        if name == "base":
            cells[2:] = ["–", "–"]  # these figures compare a policy with the base
        if sampled:
            found = figures.get("sampled")
            cells += sampled_cells(found and SamplesRecord.model_validate(found, strict=False))
        rows.append([name, *cells])
    console.print(f"\n{figures_note(result['rows'], result['pairs'])}")
    show_table(rows)
    console.print(fill(ACCURACIES, console.width))
    for name, figures in result["policies"].items():
        if found := figures.get("off_policy"):
            console.print(f"{name}: {off_policy_line(found)}")
    if mixture := result.get("mixture"):
        shares = show_weights(mixture["weights"], mixture["errors"])
        console.print(f"\nMixture, fitted by {mixture['by']}: {shares}")
    if found := result.get("cost_model"):
        console.print(f"\nThe cost model on these {found['rows']} rows")
        show_table(cost_model_table({"the run's cost model": found}))
