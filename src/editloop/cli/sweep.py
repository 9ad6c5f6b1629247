"""`editloop sweep LOG --base MODEL --grid FIELD=VALUES`: a grid of fits, and one table of them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editloop.cli.autopilot import child_command
from editloop.cli.console import called, console, fail, show_table, shown_progress
from editloop.cli.flags import Config
from editloop.cli.places import Place
from editloop.errors import ConfigError
from editloop.extras import requires
from editloop.parallel import cores
from editloop.progress import ProgressCallback

if TYPE_CHECKING:
    from editloop.offline.sweep.grid import SweepRun
    from editloop.offline.sweep.running import Pool, Slurm

SHARE = 0.8
"""The part of the free memory that the fits of this machine take together."""


def sweep(
    named: Annotated[str | None, typer.Argument(metavar="LOG", help="The log of all fits.")] = None,
    base: Annotated[str | None, typer.Option(help="The base of all fits.")] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUES",
            help="A field of a fit and its values, such as seed=0,1,2, lora.rank=8,16 or dpo.beta=0.1,1; "
            "also log and base. Values that hold commas are divided by semicolons: methods=sft;sft,dpo. May "
            "be repeated.",
        ),
    ] = None,
    grid_file: Annotated[
        Path | None, typer.Option(help="YAML file of fields and lists of values."), Place.READ
    ] = None,
    more: Annotated[
        str,
        typer.Option(
            "--with", metavar="FLAGS", help="Further flags of every fit, as one text: '--epochs 1'."
        ),
    ] = "",
    out: Annotated[
        Path,
        typer.Option(help="Folder of the run folders and the table. What is done there is not done again."),
        Place.WRITTEN,
    ] = Path("sweep"),
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Fits at a time [here 1, or one for each GPU; 8 on a cluster].")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="Run the fits as jobs: slurm, or local, which tries the same without a cluster."),
    ] = None,
    cluster_set: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A parameter of submitit, such as timeout_min=600, gpus_per_node=1, slurm_partition=gpu. "
            "May be repeated.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command lines, and end.")] = False,
    config: Config = None,
) -> None:
    """Run the verb. Long because it names every flag."""
    from editloop.offline.sweep.grid import make_runs, parse_grid, read_grid
    from editloop.offline.sweep.running import open_sweep

    requires("train")
    fields: dict[str, Any] = {**(read_grid(grid_file) if grid_file else {}), **parse_grid(grid or [])}
    rest = shlex.split(more)
    runs = make_runs(fields, {"log": named or "", "base": base or ""}, out, rest)
    for run in runs:
        _check(run)
    if dry_run:
        for run in runs:
            print(f"{called()} {shlex.join(run.arguments)}")
        return
    options = _options(cluster_set or [])
    open_sweep(out, runs)
    with shown_progress() as callback:
        here: Pool | Slurm
        own: list[str] = []
        if cluster is None:
            here, own = _pool(jobs, runs, callback)
        else:
            here = _cluster(out, cluster, jobs, options)
        failed = _run(out, runs, here, own, callback)
    _show(out, runs, failed)


def _check(run: SweepRun) -> None:
    """Refuse a run whose command line the verb `fit` would refuse.

    Raises:
        ConfigError: A value is wrong, or values exclude each other.
        typer.TyperException: A flag is.
    """
    from editloop.cli.app import app

    command: Any = typer.main.get_command(app)
    fit = command.commands["fit"]
    fit.callback.configuration(fit.make_context("fit", list(run.arguments[1:])).params)


def _options(texts: Sequence[str]) -> dict[str, Any]:
    """Return `NAME=VALUE` texts as parameters; a value that is a whole number is one.

    Raises:
        ConfigError: A text is not of that form.
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError("--cluster-set wants NAME=VALUE", seen=text, do="as in timeout_min=600")
        options[name] = int(value) if value.isdigit() else value
    return options


def _pool(jobs: int | None, runs: Sequence[SweepRun], callback: ProgressCallback) -> tuple[Pool, list[str]]:
    """Return the pool of this machine and the flags of its fits, and say what each fit gets of it."""
    import torch

    from editloop.offline.sweep.running import Pool
    from editloop.policy import choose_device
    from editloop.policy.memory import free_memory, show_size

    own: list[str] = []
    asked = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = asked.split(",") if asked else [str(i) for i in range(torch.cuda.device_count())]
    gpus = gpus if torch.cuda.is_available() else []
    jobs = jobs or max(1, len(gpus))
    threads = max(1, cores() // jobs)
    line = f"{jobs} fit{'s' * (jobs > 1)} at a time, {threads} thread{'s' * (threads > 1)} each"
    environment = {"OMP_NUM_THREADS": str(threads)}
    if gpus:
        line += f", on {len(gpus)} GPU{'s' * (len(gpus) > 1)}"
    elif not any(each.startswith("--memory") for run in runs for each in run.arguments):
        # A fit takes a share of what it finds free, and what the others are about to take is still free then.
        free, why = free_memory(choose_device("cpu")[0])
        own = ["--memory", f"{SHARE * free / jobs / 1e6:.0f}MB"]
        line += f", {show_size(SHARE * free / jobs)} of memory each ({SHARE:.0%} of {show_size(free)} {why})"
    callback.message(line)

    def of_place(place: int) -> Mapping[str, str]:
        return {**environment, **({"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else {})}

    return Pool(jobs, of_place), own


def _cluster(out: Path, cluster: str, jobs: int | None, options: Mapping[str, Any]) -> Slurm:
    from editloop.offline.sweep.running import Slurm

    if cluster not in ("slurm", "local"):
        raise ConfigError("unknown cluster", seen=cluster, do="choose slurm or local")
    return Slurm(out / "jobs", cluster, jobs or 8, options)


def _run(
    out: Path, runs: Sequence[SweepRun], here: Pool | Slurm, own: Sequence[str], callback: ProgressCallback
) -> dict[str, str]:
    """Run what is not done, with these further flags, and return why fits failed, by their names."""
    from editloop.offline.sweep.running import Fitter, is_done

    left = [run for run in runs if not is_done(out / run.name)]
    if len(left) < len(runs):
        callback.message(f"{len(runs) - len(left)} of {len(runs)} fits are done already")
    # Absolute, because a job of a cluster may begin in another folder.
    outputs = {run.name: (out / f"{run.name}.log").absolute() for run in left}
    fits = {
        run.name: Fitter(tuple(child_command()), (*run.arguments, *own), outputs[run.name]) for run in left
    }
    failed: dict[str, str] = {}
    callback.progress("fits", len(runs) - len(left), len(runs))
    for done, (name, status) in enumerate(here.run(fits), len(runs) - len(left) + 1):
        if status or not is_done(out / name):
            failed[name] = _reason(outputs[name], status)
            callback.warn(f"{name} failed: {failed[name]}")
        else:
            callback.message(f"{name}: done")
        callback.progress("fits", done, len(runs))
    return failed


def _reason(output: Path, status: int) -> str:
    """Return why a fit failed, from what it printed last."""
    if status < 0:
        return f"killed by signal {-status} (see {output})"
    try:
        lines = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    last = lines[-1].removeprefix("editloop: error: ") if lines else f"exit status {status}"
    return f"{last} (see {output})"


def _show(out: Path, runs: Sequence[SweepRun], failed: Mapping[str, str]) -> None:
    """Write and print the table; fail if a fit has."""
    from editloop.offline.sweep.table import show, write_comparison

    lines = write_comparison(out, runs, failed)
    if lines:
        rows = [["setting", "method", "fits", "validation cost", "validation loss", ""]]
        for line in lines:
            best = "best" if line.is_best else ""
            figures = [str(len(line.losses)), show(line.costs), show(line.losses)]
            rows.append([line.label, line.method, *figures, best])
        show_table(rows)
    console.print(f"\nWritten to {out}: sweep.md, results.json" + (", sweep.png" if lines else ""))
    if failed:
        fail(
            f"{len(failed)} of {len(runs)} fits failed; the same command runs them again from where they were"
        )
