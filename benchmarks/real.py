"""Every method with its defaults on a real base and real edits: does a policy learn what people changed?

SmolLM2-135M-Instruct, LAMP's paragraphs by folds of unseen writers, and translators' corrections of Romanian
and of Estonian to English. `fit` gets the rows and nothing else; all that it chooses, it chooses on its own
validation part. Each fit, and each policy's figures on the test rows, are kept as soon as they are there, so
the benchmark can be interrupted and goes on where it stopped. As many fits run at a time as there are cores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import WORK
from benchmarks.real_rows import LANGUAGES, Fold, lamp_folds, mlqe
from benchmarks.row_figures import SEED, Rows, figures_of, measure_rows, resampled_rows
from editloop.errors import ConfigError
from editloop.io import write_json, write_text
from editloop.lab.folder import claim
from editloop.offline import METHODS as REGISTRY
from editloop.offline import FitConfig, fit
from editloop.offline.examples import make_examples
from editloop.offline.reference import reference_pass
from editloop.parallel import RelayedCallback, in_parallel
from editloop.policy import Policy, RunFolder, load_base
from editloop.progress import ProgressCallback, WarningCallback, counter
from editloop.results import machine_name, markdown_table, write_result

__all__ = ["BASE", "DATA_SETS", "DTYPE", "METHODS", "Job", "claim_fit", "fit_and_measure", "possible", "run"]

BASE = "smollm2"
DTYPE = "bfloat16"
"""What a GPU takes by default; on a CPU with fast bfloat16 it takes two thirds of the time of float32."""
METHODS = ("sft", "dpo", "early", "rl", "kto")
DATA_SETS = ("lamp", *LANGUAGES)
SHOWN = 2
"""Rows of each data set whose texts are shown."""

QUOTED = 400
"""The most characters of a text that the page shows."""


def run(
    out: str | Path,
    *,
    data: str | Path | None = None,
    work: Path = WORK / "real",
    base: str = BASE,
    dtype: str = DTYPE,
    data_sets: Sequence[str] = DATA_SETS,
    methods: Sequence[str] = METHODS,
    limit: int | None = None,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Fit and measure what is not kept yet, and write `real.json` and `real.md` after each fit.

    Args:
        out: The folder for the results.
        data: The folder of real edits; `EDITLOOP_DATA` or `../shared/data` if not given.
        work: Where fits and figures are kept.
        base: The base, as `load_base` takes it.
        dtype: The precision of its weights.
        data_sets: Those of `DATA_SETS` to measure.
        methods: The methods to fit.
        limit: The most rows of each part, for a smaller experiment.
        callback: Receives progress.

    Raises:
        ConfigError: There is no such data set, or a file does not exist.
    """
    callback = callback or WarningCallback()
    if unknown := set(data_sets) - set(DATA_SETS):
        raise ConfigError("unknown data set", seen=sorted(unknown), do=f"choose of {', '.join(DATA_SETS)}")
    folds = {
        name: [Fold(fold.train[:limit], fold.test[:limit]) for fold in _folds(name, data)]
        for name in data_sets
    }
    jobs = [
        Job(name, i, fold, base, dtype, tuple(methods), work / f"{name}-{i}")
        for name in data_sets
        for i, fold in enumerate(folds[name])
    ]
    found: dict[tuple[str, int], dict[str, Any]] = {}
    measured: dict[str, Any] = {}
    for job, result in in_parallel(fit_and_measure, jobs, "fits", callback):
        found[job.name, job.place] = result
        measured = {
            "base": base,
            "dtype": dtype,
            "seed": SEED,
            "data_sets": {
                name: _summary([found[each] for each in sorted(found) if each[0] == name])
                for name in data_sets
                if any(each[0] == name for each in found)
            },
        }
        write_result("real", measured, _page(measured), out)
    return measured


class Job(NamedTuple):
    """A fit and its figures: the data set, the fold and its place, base and dtype, the methods, a folder."""

    name: str
    place: int
    fold: Fold
    base: str
    dtype: str
    methods: tuple[str, ...]
    folder: Path


def fit_and_measure(job: Job) -> dict[str, Any]:
    """Fit, unless that is done already, and return what the fit did and the figures of each policy."""
    claim_fit(job.folder, job.fold, job.base, job.dtype, job.methods)
    kept = job.folder / "fit.json"
    if kept.is_file():
        content: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return content
    callback = RelayedCallback(f"{job.name} {job.place + 1}, ")
    policy = load_base(job.base, dtype=job.dtype)  # one precision on every device
    config = FitConfig(methods=possible(job.methods, job.fold, policy))
    made = fit(job.fold.train, policy, job.folder / "run", config, callback=callback)
    rows = {arm: _rows(made, arm, policy, job.fold, job.folder, callback) for arm in made.arm_names()}
    found = {"about": _about(made, job.fold, machine_name()), "rows": rows}
    write_json(kept, found)
    return found


def claim_fit(folder: Path, fold: Fold, base: str, dtype: str, methods: Sequence[str]) -> None:
    """Check that a folder holds this fit, or claim it for this fit.

    Raises:
        RunError: It holds another fit.
    """
    size = {"train": len(fold.train), "test": len(fold.test)}
    claim(folder, "fit", {"base": base, "dtype": dtype, "methods": list(methods), **size})


def _folds(name: str, data: str | Path | None) -> list[Fold]:
    return lamp_folds(data) if name == "lamp" else [mlqe(name, data)]


def possible(methods: Sequence[str], fold: Fold, base: Policy) -> tuple[str, ...]:
    """Return the methods that have rows to learn from: KTO needs drafts that were accepted unchanged."""
    examples = make_examples(fold.train, base.encoder).examples
    return tuple(name for name in methods if REGISTRY.get(name).suffices(examples))


def _rows(
    made: RunFolder, arm: str, base: Policy, fold: Fold, folder: Path, callback: ProgressCallback
) -> Rows:
    """Return the figures of a policy on the test rows of its fit; those that are kept are read."""
    kept = folder / f"{arm}.json"
    if kept.is_file():
        content: Rows = json.loads(kept.read_text(encoding="utf-8"))
        return content
    examples, _ = reference_pass(
        base,
        make_examples(fold.test, base.encoder).examples,
        progress=counter(callback, "reference", len(fold.test)),
    )
    config = made.manifest().config
    with made.policy(arm, base) as policy:
        found = measure_rows(policy, examples, config.cost, config.max_new_tokens, arm, callback)
    write_text(kept, json.dumps(found))
    return found


def _about(made: RunFolder, fold: Fold, machine: str) -> dict[str, Any]:
    """Return what a fit did, and where: rows, minutes, chosen settings, mixture, what it left out."""
    manifest = made.manifest()
    return {
        "machine": machine,
        "train": len(fold.train),
        "test": len(fold.test),
        "cost": manifest.config.cost,
        "longest": manifest.config.max_new_tokens,
        "chosen": {name: each.best.settings for name, each in manifest.policies.items()},
        "steps": {name: [each.best.best_step, each.best.steps] for name, each in manifest.policies.items()},
        "seconds": {
            name: round(sum(trial.seconds for trial in each.trials))
            for name, each in manifest.policies.items()
        },
        "declined": dict(manifest.declined),
        "alarms": {name: each.alarms for name, each in manifest.policies.items() if each.alarms},
        "mixture": manifest.mixture.weights if manifest.mixture else None,
    }


def _summary(fits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of a data set over its folds, with intervals over contexts."""
    arms = list(dict.fromkeys(arm for each in fits for arm in each["rows"]))
    # A policy that a fold lacks, such as RL where it was declined, has figures of no fold.
    arms = [arm for arm in arms if all(arm in each["rows"] for each in fits)]
    pooled = {
        arm: {
            key: list(chain.from_iterable(each["rows"][arm][key] for each in fits))
            for key in fits[0]["rows"][arm]
        }
        for arm in arms
    }
    base = pooled["base"]
    draws = resampled_rows(base["context"])
    return {
        "fits": [each["about"] for each in fits],
        "rows": len(base["context"]),
        "policies": {arm: figures_of(rows, base, draws) for arm, rows in pooled.items()},
        # Only what the policies wrote: the corpora's texts are not ours to show.
        "texts": [
            {arm: rows["sample"][i] for arm, rows in pooled.items()}
            for i in range(min(SHOWN, len(base["context"])))
        ],
    }


COLUMNS = {
    "gain_per_token": "gain of the edit, nats per token",
    "reference_accuracy": "reference accuracy",
    "cost": "cost of a sampled response",
    "cost_saved": "less than the base's",
    "cost_saved_where_both_finish": "less, where both finish",
    "finished": "finished",
    "length_ratio": "length ratio",
}


def _page(measured: Mapping[str, Any]) -> str:
    parts = [
        f"`fit` with its defaults on {measured['base']} in {measured['dtype']}. In brackets 95% intervals by "
        "bootstrap over contexts. The gain is the edit's log-likelihood over that under the base.",
    ]
    for name, found in measured["data_sets"].items():
        fits = found["fits"]
        train = ", ".join(str(each["train"]) for each in fits)
        missing = [name for name in (*METHODS, "mixture") if name not in found["policies"]]
        parts.append(
            f"## {name}\n\n{found['rows']} test rows of {len(fits)} fit(s) on {train} rows; cost "
            f"`{fits[0]['cost']}`, responses of at most {fits[0]['longest']} tokens."
            + (f" Without {', '.join(missing)}: not every fit has figures of them." if missing else "")
        )
        rows = []
        for arm, figures in found["policies"].items():
            cells = [_shown(figures[key]) for key in COLUMNS]
            if arm == "base":
                cells[0] = cells[1] = cells[3] = cells[4] = "–"  # they are differences from the base itself
            rows.append([arm, *cells])
        parts.append(markdown_table(["policy", *COLUMNS.values()], rows))
        for i, each in enumerate(fits):
            lines = [f"- fit {i + 1}, on {each['machine']}"]
            lines += [
                f"- fit {i + 1}, {arm}: {settings}; step {each['steps'][arm][0]} of {each['steps'][arm][1]} "
                f"kept; {each['seconds'][arm] / 60:.1f} min"
                for arm, settings in each["chosen"].items()
            ]
            if each["mixture"]:
                weights = ", ".join(f"{arm} {weight:.2f}" for arm, weight in each["mixture"].items())
                lines.append(f"- fit {i + 1}, mixture: {weights}")
            lines += [f"- fit {i + 1}, {arm}: {reason}" for arm, reason in each["declined"].items()]
            lines += [
                f"- alarm, fit {i + 1}, {arm}: {line}" for arm, a in each["alarms"].items() for line in a
            ]
            parts.append("\n".join(lines))
        for text in found["texts"]:
            parts.append("\n\n".join(f"**{key}**\n\n{_quoted(value)}" for key, value in text.items()))
    return "\n\n".join(parts)


def _shown(figure: Mapping[str, Any]) -> str:
    low, high = figure["interval"]
    if figure["value"] is None or low is None or high is None:
        return "–"
    return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"


def _quoted(text: str) -> str:
    text = text if len(text) <= QUOTED else text[:QUOTED].rstrip() + " …"
    return "\n".join(f"> {line}" for line in text.splitlines() or [""])
