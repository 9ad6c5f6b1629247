"""`editloop fit LOG --base MODEL`: train policies from a log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editloop.cli.configured import configured, parse_settings, short_help
from editloop.cli.console import called, console, show_table, shown_progress
from editloop.cli.flags import Base, Config, Device, Dtype, LogPath, Quantize, TrustRemoteCode
from editloop.cli.places import Place
from editloop.cli.reading import Reading, reads
from editloop.errors import ConfigError
from editloop.extras import requires
from editloop.offline.config import FitConfig
from editloop.offline.methods import METHODS
from editloop.progress import ProgressCallback

if TYPE_CHECKING:
    from editloop.edits import Log, LogAddress
    from editloop.offline.logging_policies import LoggedPolicy
    from editloop.policy import Policy, RunFolder


def _make(values: dict[str, Any]) -> FitConfig:
    """Return the configuration from the values that were given.

    A hyperparameter without a method, `--set learning_rate=1e-4`, is that of all methods that have it.
    """
    settings = values.pop("hyperparameters", [])
    config = FitConfig(**values)
    changes: dict[str, Any] = {}
    for name, tried in parse_settings(settings, "--set").items():
        if "." in name:
            changes[name] = tried
            continue
        having = [m for m in config.methods if name in METHODS.get(m).hyperparameters.model_fields]
        if not having:
            raise ConfigError(
                "no method that is trained has this hyperparameter", seen=name, do="see --help-all"
            )
        changes |= {f"{method}.{name}": tried for method in having}
    return config.changed(changes) if changes else config


@short_help("map", "base", "out", "device", "plan", "config")
@reads
@configured(FitConfig, _make, nested={"hyperparameters": "--set"})
def fit(
    log: LogPath,
    reading: Reading,
    base: Base,
    given: FitConfig,
    out: Annotated[
        Path, typer.Option(help="Run folder. An interrupted fit in it is continued."), Place.WRITTEN
    ] = Path("run"),
    end_token: Annotated[str | None, typer.Option(help="Token that ends a turn, if it is not found.")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    trust_remote_code: TrustRemoteCode = False,
    policies: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="Run folder of policies that wrote the log, for --reference logged; may be repeated. Those "
            "of a server's store are known.",
        ),
        Place.READ,
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what the fit would take, and end; nothing is written.")
    ] = False,
    config: Config = None,
) -> None:
    """Run the verb."""
    requires("train")
    import editloop
    from editloop.offline.logging_policies import log_policies
    from editloop.policy.memory import parse_size

    with shown_progress() as callback:
        written_by: dict[str, LoggedPolicy] = {}
        if plan:
            records, read = reading.read(log, out, callback), None
        else:
            records, read, written_by = _read(reading, log, out, callback)
        written_by |= log_policies(records, policies or ())
        policy = editloop.load_base(
            base,
            device=device,
            dtype="float32" if given.full and dtype == "auto" else dtype,
            quantize=quantize,
            max_length=given.max_length,
            end_token=end_token,
            trust_remote_code=trust_remote_code,
            memory=parse_size(given.memory) if given.memory else None,
        )
        if plan:
            print_plan(policy, records, given, written_by, callback)
            return
        run = editloop.fit(records, policy, out, given, read=read, policies=written_by, callback=callback)
    if not callback.first_process:  # of several that train together, one prints
        return
    print_run(run)
    console.print(f"\nRun folder {run.path}, report {run.report}")
    console.print(f"Next: {called()} evaluate {run.path} HELD_OUT_LOG{reading.again()}")


def print_plan(
    policy: Policy,
    records: Log,
    config: FitConfig,
    policies: Mapping[str, LoggedPolicy],
    callback: ProgressCallback,
) -> None:
    """Print the base's decisions and the plan of a fit."""
    from editloop.offline import plan_fit

    plan = plan_fit(records, policy, config, policies=policies, callback=callback)
    for line in (*policy.decisions, *plan.lines()):
        callback.message(line)


def _read(
    reading: Reading, log: Path | LogAddress, out: Path, callback: ProgressCallback
) -> tuple[Log, dict[str, Any] | None, dict[str, LoggedPolicy]]:
    """Read the log; returns it and, of a database, what the manifest is to say about it, and its policies.

    A database may grow while a fit runs. So the rows that were read are kept with the work of the fit until
    it is done, and an interrupted fit continues with the same rows.
    """
    from editloop.edits import read_log, write_log
    from editloop.io import write_text
    from editloop.offline.logging_policies import LoggedPolicy
    from editloop.policy import RunFolder

    if isinstance(log, Path):
        made = [out / "run.json", out / "report.html"]
        return reading.read(log, out, callback, writes=made), None, {}
    run = RunFolder(out)
    rows, about = run.work / "log.jsonl", run.work / "read.json"
    if about.is_file():
        read = json.loads(about.read_text(encoding="utf-8"))
        callback.message(f"going on with the {read['rows']} rows that were read of {read['path']}")
        known = {name: LoggedPolicy(*place) for name, place in read.pop("policies", {}).items()}
        return read_log(rows, keep_duplicates=True), read, known
    records = reading.read(log, out, callback)
    where = records.report.path
    assert not isinstance(where, Path)
    read = {"path": str(where), "sha256": records.report.sha256, "rows": records.report.rows_read}
    read |= {"until": where.until, "store": where.salt(), "users": list(records.report.users) or None}
    # Not in a folder of something else, where `fit` refuses to write.
    if run.exists() or not out.exists() or not any(out.iterdir()):
        # The rows first: the other file, whose presence is asked for above, shows that they are whole.
        run.work.mkdir(parents=True, exist_ok=True)
        write_log(records, rows)
        write_text(about, json.dumps({**read, "policies": where.policies()}))
    return records, read, {}


def print_run(run: RunFolder) -> None:
    """Print the policies of a run as a table with the sampled cost first, then their trainings."""
    from editloop.offline.report import ACCURACIES, figures_note, figures_table, show_number, verdict_of

    manifest = run.manifest()
    # A table apart, because both together would not fit into 80 columns.
    trained = [["method", "validation loss", "steps", "settings"]]
    for name, policy in manifest.policies.items():
        best = policy.best
        losses = f"{show_number(best.initial_loss)} → {show_number(best.validation_loss)}"
        kept = "–" if best.best_step is None else best.best_step
        trained.append([name, losses, f"{kept} of {best.steps}", best.settings])
    if manifest.data is not None:
        held = manifest.data.validation
        console.print()
        console.print(fill(f"Validation: {figures_note(held.examples, held.pairs)}", console.width))
    show_table(figures_table(manifest, ("accuracy", "reference_accuracy")))
    console.print(fill(ACCURACIES, console.width))
    console.print()
    show_table(trained)
    console.print(f"\n{verdict_of(manifest).headline}")
