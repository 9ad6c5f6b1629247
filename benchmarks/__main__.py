"""`python -m benchmarks NAME`: run one benchmark, and keep its results.

`make bench NAME=...` installs what the benchmarks need, and runs this command in the root of the repository.
"""

from __future__ import annotations

import inspect
import warnings
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from editloop.cli.console import console, fail, shown_progress
from editloop.errors import ConfigError, EditLoopError

BENCHMARKS = {
    "ablation": "sensitivity:ablation",
    "alpha": "sensitivity:alpha",
    "autopilot-faults": "autopilot_faults:run",
    "bandits": "bandits:run",
    "clients": "clients:run",
    "code": "code:run",
    "cost-speed": "cost_speed:run",
    "costs": "costs:run",
    "defaults": "defaults:run",
    "costs-real": "costs_real:run",
    "dashboard": "dashboard:run",
    "diagnosis": "diagnosis:run",
    "drift": "drift:run",
    "edit-losses": "edit_losses:run",
    "edit-sizes": "edit_sizes:run",
    "edits-batch": "edits_batch:run",
    "estimate": "estimate:run",
    "faults": "faults:run",
    "generations": "generations:run",
    "in-context": "in_context:run",
    "inheritance": "inheritance:run",
    "large-log": "large_log:run",
    "learners": "learners:run",
    "learning-speed": "learning_speed:run",
    "log-scale": "log_scale:run",
    "own-log": "own_log:run",
    "personal": "personal:run",
    "personal-adapters": "personal_adapters:run",
    "pessimism": "pessimism:run",
    "postedit": "postedit:run",
    "promotion": "promotion:run",
    "quality": "quality:run",
    "real": "real:run",
    "real-table": "real_table:run",
    "real-trl": "real_trl:run",
    "refuser": "refuser:run",
    "replicas": "replicas:run",
    "rerank": "rerank:run",
    "rerank-real": "rerank_real:run",
    "rl": "rl:run",
    "sandbox": "sandbox:run",
    "serve": "serving:run",
    "serve-local": "serve_local:run",
    "shadow-bias": "shadow_bias:run",
    "table1": "tables:table1",
    "table2": "tables:table2",
    "train-speed": "train_speed:run",
    "tune": "tune:run",
    "weights": "weights:run",
    "winrate": "winrate:run",
    "wrong-edits": "wrong_edits:run",
}
"""The module and function of each benchmark. To add a benchmark, add its file and a line here."""


def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help=", ".join(BENCHMARKS))],
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("benchmarks/results"),
    sizes: Annotated[
        str | None, typer.Option(help="The bases of train-speed on a GPU, such as 0.5b,3b.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="The rows of log-scale and large-log.")] = None,
    base: Annotated[
        str | None, typer.Option(help="The base of train-speed and real-trl: a folder, a hub name, smollm2.")
    ] = None,
) -> None:
    """Run one benchmark and write NAME.json and NAME.md."""
    if name not in BENCHMARKS:
        raise ConfigError("unknown benchmark", seen=name, do=f"choose one of {', '.join(BENCHMARKS)}")
    module, _, function = BENCHMARKS[name].partition(":")
    run = getattr(import_module(f"benchmarks.{module}"), function)
    named = [size.strip() for size in (sizes or "").split(",") if size.strip()]
    given = {"sizes": named or None, "base": base, "rows": rows}
    options: dict[str, Any] = {option: value for option, value in given.items() if value is not None}
    for option, value in options.items():
        if option not in inspect.signature(run).parameters:
            raise ConfigError(f"{name} takes no --{option}", seen=value, do="leave it out")
    with shown_progress() as callback:
        run(out, callback=callback, **options)
    written = max(out.glob(f"{name}*.md"), key=lambda page: page.stat().st_mtime)
    console.print(written.read_text(encoding="utf-8"))


def main() -> None:
    """Run the command; a user's error is one line and exit status 1."""
    warnings.simplefilter("ignore")
    try:
        typer.run(bench)
    except EditLoopError as error:
        fail(str(error))


if __name__ == "__main__":
    main()
