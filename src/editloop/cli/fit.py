"""`editloop fit LOG --base MODEL`: train policies from a log."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editloop.cli.console import called, console, show_table, shown_progress
from editloop.cli.flags import Base, Config, Device, Dtype, LogPath, Quantize, TrustRemoteCode
from editloop.cli.places import Place
from editloop.cli.reading import Reading, reads
from editloop.progress import ProgressCallback

if TYPE_CHECKING:
    from editloop.edits import Log, LogAddress


@reads
def fit(
    log: LogPath,
    reading: Reading,
    base: Base,
    out: Annotated[
        Path, typer.Option(help="Run folder; an interrupted fit in it goes on."), Place.WRITTEN
    ] = Path("run"),
    methods: Annotated[str | None, typer.Option(help="sft,dpo,rl,early [sft,dpo,early]")] = None,
    learning_rate: Annotated[
        str | None, typer.Option(help="For all methods, 1e-4,3e-4, or for each: sft=1e-4,3e-4;dpo=2e-5")
    ] = None,
    beta: Annotated[
        str | None,
        typer.Option(
            help="Values of beta (Eq. 4, 6) to try: 0.05,0.1, or dpo=1;rl=0.05 (rl: of the mean cost)."
        ),
    ] = None,
    dpo_weight: Annotated[str | None, typer.Option(help="Values of lambda (Eq. 7) to try.")] = None,
    rl_weight: Annotated[
        str | None, typer.Option(help="Values of the weight of RL in EarlyEnsemble to try [0].")
    ] = None,
    kappa: Annotated[
        str | None, typer.Option(help="Values of kappa, how pessimistic RL is, to try [1].")
    ] = None,
    rl_loss: Annotated[
        str | None, typer.Option(help="Losses of RL to try: pairwise, weighted [pairwise].")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(help="Responses drawn for each context, for RL [4].")
    ] = None,
    cost_model: Annotated[str | None, typer.Option(help="ridge, bootstrap, tuned or auto [ridge]")] = None,
    select: Annotated[str | None, typer.Option(help="Choose of the grid by validation loss or cost.")] = None,
    sft_reduction: Annotated[str | None, typer.Option(help="token or sequence")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the train part [3].")] = None,
    rl_epochs: Annotated[float | None, typer.Option(help="Passes of RL [as --epochs].")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Contexts in an optimiser step [32].")] = None,
    micro_batch_size: Annotated[int | None, typer.Option(help="Contexts in a forward of a process.")] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, more time.")
    ] = False,
    evaluations: Annotated[int | None, typer.Option(help="Validations in a training [8].")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many without a better one [3].")] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of the steps for warm-up [0.1].")] = None,
    full: Annotated[bool, typer.Option("--full", help="Train all weights instead of LoRA.")] = False,
    lora_rank: Annotated[int | None, typer.Option(help="Rank of the adapter [16].")] = None,
    lora_alpha: Annotated[float | None, typer.Option(help="Scale of the adapter [32].")] = None,
    lora_dropout: Annotated[float | None, typer.Option(help="Dropout of the adapter [0].")] = None,
    lora_targets: Annotated[str | None, typer.Option(help="Modules, by comma [all-linear].")] = None,
    validation: Annotated[float | None, typer.Option(help="Share kept for choosing [0.1].")] = None,
    split_by: Annotated[str | None, typer.Option(help="record, user or time [record].")] = None,
    validation_rows: Annotated[int | None, typer.Option(help="Most validation rows used [500].")] = None,
    samples: Annotated[int | None, typer.Option(help="Responses sampled from each policy [64].")] = None,
    mixture: Annotated[
        str | None, typer.Option(help="Fit the mixture by likelihood, cost or none [likelihood].")
    ] = None,
    cost: Annotated[str | None, typer.Option(help="Cost, as of editloop inspect.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest sampled response [256].")] = None,
    max_length: Annotated[int | None, typer.Option(help="Most tokens of context and continuation.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of split, adapters, order and sampling [0].")] = None,
    end_token: Annotated[str | None, typer.Option(help="Token that ends a turn, if it is not found.")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    trust_remote_code: TrustRemoteCode = False,
    config: Config = None,
) -> None:
    """Run the verb."""
    lora = {"rank": lora_rank, "alpha": lora_alpha, "dropout": lora_dropout}
    lora["targets"] = _names(lora_targets) if lora_targets and "," in lora_targets else lora_targets  # type: ignore[assignment]
    options = {
        "methods": methods and _names(methods),
        "learning_rate": learning_rate
        and _by_method(learning_rate, "--learning-rate", methods or "sft,dpo,rl,early"),
        "beta": beta and _by_method(beta, "--beta", "dpo,rl,early"),
        "dpo_weight": dpo_weight and _numbers(dpo_weight, "--dpo-weight"),
        "rl_weight": rl_weight and _numbers(rl_weight, "--rl-weight"),
        "kappa": kappa and _numbers(kappa, "--kappa"),
        "rl_loss": rl_loss and _names(rl_loss),
        "candidates": candidates,
        "cost_model": cost_model,
        "select": select,
        "sft_reduction": sft_reduction,
        "epochs": epochs,
        "rl_epochs": rl_epochs,
        "batch_size": batch_size,
        "micro_batch_size": micro_batch_size,
        "gradient_checkpointing": gradient_checkpointing,
        "evaluations": evaluations,
        "patience": patience,
        "warmup": warmup,
        "full": full,
        "lora": {key: value for key, value in lora.items() if value is not None},
        "validation": validation,
        "split_by": split_by,
        "validation_rows": validation_rows,
        "samples": samples,
        "mixture": mixture,
        "cost": cost,
        "max_new_tokens": max_new_tokens,
        "max_length": max_length,
        "seed": seed,
    }
    import editloop
    from editloop.offline import make_fit_config

    fit_config = make_fit_config(**{key: value for key, value in options.items() if value is not None})
    with shown_progress() as callback:
        records, read = _read(reading, log, out, callback)
        policy = editloop.load_base(
            base,
            device=device,
            dtype="float32" if full and dtype == "auto" else dtype,
            quantize=quantize,
            max_length=max_length,
            end_token=end_token,
            trust_remote_code=trust_remote_code,
        )
        run = editloop.fit(records, policy, out, fit_config, read=read, callback=callback)
    if not callback.first_process:
        return
    print_run(run)
    console.print(f"\nRun folder {run.path}, report {run.report}")
    console.print(f"Next: {called()} evaluate {run.path} HELD_OUT_LOG{reading.again()}")


def _read(
    reading: Reading, log: Path | LogAddress, out: Path, callback: ProgressCallback
) -> tuple[Log, dict[str, Any] | None]:
    """The log, and what is to be recorded of it.

    A store goes on growing. What was read of it is kept beside the work of a fit until that is done, so that
    an interrupted one goes on with the same rows.
    """
    from editloop.edits import read_log, write_log
    from editloop.io import write_text
    from editloop.policy import RunFolder

    if isinstance(log, Path):
        made = [out / "run.json", out / "report.html"]
        return reading.read(log, out, callback, writes=made), None
    run = RunFolder(out)
    rows, about = run.work / "log.jsonl", run.work / "read.json"
    if about.is_file():
        read = json.loads(about.read_text(encoding="utf-8"))
        callback.message(f"going on with the {read['rows']} rows that were read of {read['path']}")
        return read_log(rows, keep_duplicates=True), read
    records = reading.read(log, out, callback)
    where = records.report.path
    assert not isinstance(where, Path)
    read = {"path": str(where), "sha256": records.report.sha256, "rows": records.report.rows_read}
    read |= {"until": where.until, "store": where.salt()}
    if run.exists() or not out.exists() or not any(out.iterdir()):
        run.work.mkdir(parents=True, exist_ok=True)
        write_log(records, rows)
        write_text(about, json.dumps(read))
    return records, read


def print_run(run: Any) -> None:
    """The policies of a run as a table."""
    from editloop.offline.report import (
        ACCURACIES,
        FIGURES,
        figures_note,
        show_estimate,
        show_number,
        show_settings,
    )

    shown = ("accuracy", "reference_accuracy")
    rows = [["policy", "settings", "validation loss", *(FIGURES[key] for key in shown), "sampled cost"]]
    manifest = run.manifest()
    for name, policy in manifest["policies"].items():
        best = policy["candidates"][policy["chosen"]]
        rows.append(
            [
                name,
                show_settings(best),
                f"{show_number(best['initial_loss'])} → {show_number(best['validation_loss'])}",
                *(show_estimate(best["validation"].get(key)) for key in shown),
                show_estimate(best["sampled"] and best["sampled"]["cost"]),
            ]
        )
    held = manifest["data"]["validation"]
    console.print(f"\nValidation: {figures_note(held['examples'], held['pairs'])}")
    show_table(rows)
    console.print(fill(ACCURACIES, console.width))


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str, flag: str) -> tuple[float, ...]:
    from editloop.errors import ConfigError

    try:
        return tuple(float(part) for part in _names(str(text)))
    except ValueError as error:
        raise ConfigError(f"{flag} wants numbers divided by commas", seen=text) from error


def _by_method(text: str, flag: str, methods: str) -> dict[str, tuple[float, ...]]:
    """`1e-4,3e-4` for all methods, or `sft=1e-4,3e-4;dpo=2e-5` for each."""
    if "=" not in str(text):
        return dict.fromkeys(_names(methods), _numbers(text, flag))
    parts = (part.partition("=") for part in text.split(";"))
    return {name.strip(): _numbers(values, flag) for name, _, values in parts}
