"""`editloop evaluate RUN LOG`: held-out likelihood and accuracies of a run's policies."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editloop.cli.console import console, show_table, shown_progress
from editloop.cli.flags import Config, Device, Dtype, LogPath, Quantize, TrustRemoteCode
from editloop.cli.places import Place, files_of, stem
from editloop.cli.reading import Reading, reads
from editloop.errors import ConfigError
from editloop.io import guard_outputs, write_json

if TYPE_CHECKING:
    from editloop.users import LLMJudge


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
    outcome: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="An outcome in the rows' metadata, such as a CI's verdict, to look at, too."
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="A model that says which of a policy's and the base's samples is better."
        ),
    ] = None,
    judge_url: Annotated[
        str | None, typer.Option(help="The judge's OpenAI-compatible endpoint, up to /v1.")
    ] = None,
    judge_budget: Annotated[int | None, typer.Option(help="The most requests to the judge.")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    trust_remote_code: TrustRemoteCode = False,
    config: Config = None,
) -> None:
    """Run the verb. It is long because most of it is its flags."""
    import editloop

    if judge is None and (judge_url, judge_budget) != (None, None):
        raise ConfigError("--judge-url and --judge-budget are for a judge", do="give --judge MODEL")
    if judge is not None and not samples:
        raise ConfigError("a judge compares sampled responses", seen=judge, do="give --samples")
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
            folder,
            records,
            base=base,
            samples=samples,
            seed=seed,
            drop_seen=drop_seen,
            outcome=outcome,
            judge=_judge(judge, judge_url, judge_budget, run / "judge.jsonl"),
            callback=callback,
        )
    write_json(file, {"log": {"path": str(log), "sha256": records.report.sha256}, **result})
    print_evaluation(result)
    console.print(f"\nWritten to {file}")


def _judge(model: str | None, url: str | None, budget: int | None, transcript: Path) -> LLMJudge | None:
    """The judge, whose answers are kept in the run folder."""
    if model is None:
        return None
    from editloop.users import LLMJudge, LLMSettings

    return LLMJudge(
        LLMSettings(model=model, base_url=url, budget=budget, max_tokens=16), transcript=transcript
    )


def print_evaluation(result: dict[str, Any]) -> None:
    """Print the figures of every policy as a table."""
    from editloop.offline.report import (
        ACCURACIES,
        FIGURES,
        SAMPLED,
        cost_model_table,
        figures_note,
        off_policy_line,
        outcome_line,
        sampled_cells,
        show_estimate,
        show_weights,
        wins_line,
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
    for name, figures in result["policies"].items():
        if found := figures.get("wins"):
            console.print(f"{name}: {wins_line(found)}")
    if found := result.get("outcome"):
        console.print(f"\n{outcome_line(found, result['policies'])}")
    if mixture := result.get("mixture"):
        shares = show_weights(mixture["weights"], mixture["errors"])
        console.print(f"\nMixture, fitted by {mixture['by']}: {shares}")
    if found := result.get("cost_model"):
        console.print(f"\nThe cost model on these {found['rows']} rows")
        show_table(cost_model_table({"the run's cost model": found}))
