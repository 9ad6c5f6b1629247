"""`fit`: from a log to trained policies, all methods in one process from one load of the base.

A fit that was killed is run again with the same arguments: finished trainings are kept, the one under
way goes on from its last checkpoint, and the result is the same.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from editloop.edits import Cost, Log, Record, get_cost, row_hashes, split
from editloop.errors import ConfigError, EmptyViewError, RunError
from editloop.offline.alarms import SampleCheck, check_samples, raise_alarms
from editloop.offline.config import FitConfig, Trial
from editloop.offline.cost_model.preparation import estimate_costs
from editloop.offline.cost_model.saved import predicted_costs, save_cost_model
from editloop.offline.examples import EDIT, Example, ExampleSet, make_examples
from editloop.offline.methods import METHODS
from editloop.offline.mixture import Mixture, mix_by_cost, mix_by_likelihood
from editloop.offline.reference import on_all_processes, reference_of, reference_pass
from editloop.offline.report import show_weights, write_run_report
from editloop.offline.trial import TrialRows, train_trial
from editloop.policy import Policy, RunFolder, check_device, load_base, processes
from editloop.policy.manifest import Manifest, MixtureRecord, PolicyRecord
from editloop.progress import ProgressCallback, WarningCallback, counter

__all__ = ["fit"]


@dataclass(frozen=True)
class _Data:
    """The encoded log of a fit."""

    train: ExampleSet
    validation: ExampleSet


def fit(
    log: Log | Sequence[Record],
    base: str | Path | Policy,
    out: str | Path,
    config: FitConfig | None = None,
    *,
    read: dict[str, Any] | None = None,
    report: bool = True,
    callback: ProgressCallback | None = None,
) -> RunFolder:
    """Train policies from a log.

    Args:
        log: What `editloop.read_log` gives, or records.
        base: As of `load_base`, or a loaded base.
        out: The run folder; an interrupted fit in it is continued.
        config: The configuration; by default `FitConfig()`.
        read: What was read, for the record in `run.json`; a `Log` brings its own.
        report: Whether `report.html` is written, which takes about a second.
        callback: Hears of decisions, alarms and progress: one of your own, or what `editloop.show_progress`
            gives. Without one, alarms are Python warnings (`EditLoopWarning`).

    Returns:
        The finished run folder.

    Raises:
        EmptyViewError: No row is left for a method to learn from, or to validate on.
        RunError: The folder belongs to another configuration, or cannot be written.
        ModelError: The base cannot be loaded or used.
        ConfigError: The base is quantised but should be trained itself, lies on the wrong GPU, or a batch
            cannot be divided among the processes.
    """
    config, callback, run = config or FitConfig(), callback or WarningCallback(), RunFolder(out)
    if isinstance(log, Log):
        read = read or {
            "path": str(log.report.path),
            "sha256": log.report.sha256,
            "rows": log.report.rows_read,
        }
    policy = base if isinstance(base, Policy) else _load(base, config)
    state = processes(policy.device)
    check_device(policy.device, state)
    if config.full and policy.quantize is not None:
        raise ConfigError(
            "a quantised base cannot be trained itself", seen=policy.quantize, do="drop --full or --quantize"
        )
    for line in policy.decisions:
        callback.message(line)
    # An order of the records' own: that of the log makes no difference, and its first rows, which may be
    # all of one user, are not the first here.
    records = tuple(sorted(log, key=lambda record: hashlib.blake2b(record.id.encode()).digest()))
    data = _prepare(records, policy, config, callback)
    identity = _identity(policy, config, data)
    before = _open(run, identity)
    if state.is_main_process:
        run.remove_leftovers()
    state.wait_for_everyone()  # before any process writes what another would read here
    if before is not None and before.status == "done":
        callback.message(
            f"nothing to do: {run.path} holds the finished run of this log, base and configuration"
        )
        # Killed before it was written, or it was not asked for then.
        if report and state.is_main_process and not run.report.is_file():
            write_run_report(run)
        return run
    cost = get_cost(config.cost, tokenize=policy.encoder.tokenize)
    estimates = None
    if "cost_model" in config.needs:
        estimates = estimate_costs(
            run, data.train.examples, data.validation.examples, policy, config, cost, callback
        )
        data = _Data(
            ExampleSet(estimates.train, data.train.counts),
            ExampleSet(estimates.held, data.validation.counts),
        )
    else:
        data = _with_reference(data, policy, config, callback)
    base_check = _check_base(policy, config, data, cost, callback)
    manifest = _manifest(
        identity,
        read or {"rows": len(records)},
        data,
        policy,
        config,
        base_check,
        estimates.report if estimates else None,
        before.policies if before else {},
    )
    if state.is_main_process:
        run.write_manifest(manifest)
        run.write_rows(row_hashes(records))
        if estimates is not None:
            save_cost_model(run, estimates)
    state.wait_for_everyone()
    for method in config.methods:
        if method in manifest.policies:
            continue
        manifest.policies[method] = _train_method(run, policy, method, config, data, base_check, callback)
        if state.is_main_process:
            run.write_manifest(manifest)
    if config.mixture != "none" and len(config.methods) > 1:
        mixture = _mixed(run, policy, config, data.validation.examples, cost)
        if mixture is not None:
            callback.message(f"mixture by {mixture.by}: {show_weights(mixture.weights, mixture.errors)}")
            manifest.mixture = MixtureRecord.model_validate(mixture.to_json(), strict=False)
    manifest.status = "done"
    if state.is_main_process:
        run.write_manifest(manifest)
        shutil.rmtree(run.work, ignore_errors=True)
        if report:
            write_run_report(run)
    state.wait_for_everyone()
    return run


def _check_base(
    policy: Policy, config: FitConfig, data: _Data, cost: Cost, callback: ProgressCallback
) -> SampleCheck | None:
    """What sampled responses of the base look like, which those of the policies are compared with."""
    if config.validation_samples:
        callback.message(f"cost {cost.name}, between a sampled response and the row's edit")
    shown = list(data.validation.examples[: config.validation_samples])
    return check_samples(
        policy,
        shown,
        cost,
        seed=config.seed,
        max_new_tokens=config.max_new_tokens,
        progress=counter(callback, "base, samples", len(shown)),
    )


def _manifest(
    identity: str,
    read: Mapping[str, Any],
    data: _Data,
    policy: Policy,
    config: FitConfig,
    base_check: SampleCheck | None,
    cost_model: Mapping[str, Any] | None,
    policies: Mapping[str, PolicyRecord],
) -> Manifest:
    """What is known of a run before its first training."""
    content = {
        "status": "running",
        "identity": identity,
        "read": read,
        "data": {
            part: {"examples": len(s.examples), "pairs": len(s.pairs), "counts": dict(s.counts)}
            for part, s in (("train", data.train), ("validation", data.validation))
        },
        "base": {
            "name": policy.base,
            "fingerprint": policy.fingerprint,
            "max_length": policy.encoder.max_length,
            "end_token": policy.encoder.end_token,
            "quantize": policy.quantize,
            "dtype": policy.dtype,
            "trust_remote_code": policy.trust_remote_code,
            "decisions": policy.decisions,
            "sampled": base_check.to_json() if base_check else None,
        },
        "config": config.model_dump(mode="json"),
        "cost_model": cost_model,
    }
    manifest = Manifest.model_validate(content, strict=False)
    return manifest.model_copy(update={"policies": dict(policies)})


def _load(base: str | Path, config: FitConfig) -> Policy:
    """The base; weights that are trained themselves need more precision than bf16 has."""
    return load_base(base, max_length=config.max_length, dtype="float32" if config.full else "auto")


def _prepare(
    records: tuple[Record, ...], policy: Policy, config: FitConfig, callback: ProgressCallback
) -> _Data:
    """Split and encode; every row that a method will not see is told."""
    parts = split(records, by=config.split_by, validation=config.validation, seed=config.seed)
    data = _Data(
        make_examples(parts.train, policy.encoder),
        make_examples(parts.validation[: config.validation_rows], policy.encoder),
    )
    callback.message(
        f"rows: {len(data.train.examples)} to train on ({len(data.train.pairs)} edited), "
        f"{len(data.validation.examples)} to validate on ({len(data.validation.pairs)} edited)"
    )
    for reason, count in (data.train.counts + data.validation.counts).items():
        callback.message(f"  {count} rows: {reason}")
    for name in config.methods:
        method = METHODS.get(name)
        for part, found in (("train", data.train), ("validation", data.validation)):
            if not method.suffices(found.examples):
                seen = ", ".join(
                    f"{n} {reason}" for reason, n in (data.train.counts + data.validation.counts).items()
                )
                raise EmptyViewError(
                    f"{method.title} needs {method.learns_from}, and the {part} part has none",
                    seen=seen or f"{len(records)} rows in the log",
                    do="give more rows, or choose other --methods",
                )
    return data


def _with_reference(data: _Data, policy: Policy, config: FitConfig, callback: ProgressCallback) -> _Data:
    """The data with log π_ref where a loss or a figure needs it.

    Of the training rows only the pairs' is needed by several methods; what a method needs beside it is
    computed when it is its turn.
    """
    world = processes(policy.device).num_processes

    def scored(task: str, rows: Sequence[Example]) -> tuple[list[Example], bool]:
        return reference_pass(policy, rows, progress=counter(callback, task, len(rows), world))

    held, known = scored("reference, validation", data.validation.examples)
    train, count = data.train, len(held)
    if "reference" in config.needs:
        pairs, pairs_known = scored("reference", train.pairs)
        known, count, left = known and pairs_known, count + len(pairs), iter(pairs)
        train = ExampleSet(tuple(next(left) if e.is_pair else e for e in train.examples), train.counts)
    callback.message(f"reference pass {'from the cache' if known else 'done'}: {count} rows")
    return _Data(train, ExampleSet(tuple(held), data.validation.counts))


def _identity(policy: Policy, config: FitConfig, data: _Data) -> str:
    """Hash of all that the result depends on."""
    digest = hashlib.sha256(f"{policy.fingerprint} {config.model_dump_json()}".encode())
    for example in (*data.train.examples, *data.validation.examples):
        digest.update(repr((example.id, example.tree.context, example.tree.continuations)).encode())
    return digest.hexdigest()[:16]


def _is_foreign(path: Path) -> bool:
    """Whether a folder's entry is no fit's: neither its work nor a first `run.json` cut short by a kill."""
    return path.name != ".work" and not path.name.startswith((".run.json.", ".cost_model."))


def _open(run: RunFolder, identity: str) -> Manifest | None:
    """The manifest of the fit to continue; None for a new one.

    Raises:
        RunError: The folder holds something else.
    """
    if not run.exists():
        if run.path.exists() and (not run.path.is_dir() or any(map(_is_foreign, run.path.iterdir()))):
            raise RunError(
                "the output folder holds something else", seen=str(run.path), do="choose another --out"
            )
        return None
    manifest = run.manifest()
    if manifest.identity != identity:
        raise RunError(
            "the output folder holds the run of another log, base or configuration",
            seen=str(run.path),
            do="choose another --out",
        )
    return manifest


def _train_method(
    run: RunFolder,
    policy: Policy,
    name: str,
    config: FitConfig,
    data: _Data,
    base_check: SampleCheck | None,
    callback: ProgressCallback,
) -> PolicyRecord:
    """Train every trial of a method, keep the best, and say what it is like."""
    trials = config.trials(name)
    results = [
        train_trial(
            run.work / name / trial.name,
            policy,
            trial,
            config,
            _rows_of(trial, policy, data, callback),
            f"{name} {trial.name}" if len(trials) > 1 else name,
            callback,
        )
        for trial in trials
    ]
    criterion = "validation_loss" if config.select == "loss" else "validation_cost"
    figures = [math.nan if result[criterion] is None else result[criterion] for result in results]
    # What diverged has no figure; it is kept, with its alarm, only if nothing else is there.
    best = min(range(len(trials)), key=lambda i: math.inf if math.isnan(figures[i]) else figures[i])
    chosen = run.work / name / trials[best].name / "policy"
    state = processes(policy.device)
    if state.is_main_process:
        run.save_policy(name, lambda fresh: _copy(chosen, fresh))
    state.wait_for_everyone()
    result = results[best]
    sampled = SampleCheck.from_json(result["sampled"]) if result["sampled"] else None
    alarms = raise_alarms(
        initial_loss=result["initial_loss"],
        best_loss=result["validation_loss"],
        figures=result["validation"],
        sampled=sampled,
        base=base_check,
    )
    callback.message(
        f"{name}: {criterion.replace('_', ' ')} {figures[best]:.4f} with {trials[best].name}"
        + (f", the best of {len(trials)}" if len(trials) > 1 else "")
    )
    for alarm in alarms:
        callback.warn(f"{name}: {alarm}")
    record = {"chosen": best, "selected_by": config.select, "alarms": alarms, "trials": results}
    return PolicyRecord.model_validate(record, strict=False)


def _rows_of(trial: Trial, policy: Policy, data: _Data, callback: ProgressCallback) -> TrialRows:
    """The completions that a trial learns from and is validated on, with log π_ref where it is needed."""
    method, hyperparameters = trial.method, trial.hyperparameters
    train = [e for e in data.train.examples if method.rows(e)]
    held = [e for e in data.validation.examples if method.rows(e)]
    rows = [method.completions(part, hyperparameters) for part in (train, held)]
    # The validation figure of the base itself is made of its reference, whatever the loss needs.
    wanted = [("train", "reference" in trial.needs), ("validation", True)]
    for part, (task, is_needed) in zip(rows, wanted, strict=True):
        unknown = [i for i, each in enumerate(part) if is_needed and each.reference is None]
        if unknown:
            progress = counter(
                callback,
                f"{method.name}, reference, {task}",
                len(unknown),
                processes(policy.device).num_processes,
            )
            found, _ = reference_of(policy, [part[i] for i in unknown], progress=progress)
            for i, each in zip(unknown, found, strict=True):
                part[i] = each
    return TrialRows(rows[0], rows[1], data.validation.examples, held)


def _mixed(
    run: RunFolder, policy: Policy, config: FitConfig, held: Sequence[Example], cost: Cost
) -> Mixture | None:
    """The mixture of a run's policies, fitted on the validation part; one that diverged is left out."""
    table: dict[str, list[float]] = {}
    texts: dict[str, list[str]] = {}
    shown = held[: config.validation_samples]
    for name in config.methods:
        with run.policy(name, policy) as trained:
            trees = [e.completions.only(EDIT).tree for e in held]
            log_probs = [each[0] for each in on_all_processes(policy.device, trees, trained.log_probs)]
            if not np.isfinite(log_probs).all():
                continue
            table[name] = log_probs
            if config.mixture == "cost":
                contexts = [e.context for e in shown]
                drawn = trained.sample(contexts, seed=config.seed, max_new_tokens=config.max_new_tokens)
                texts[name] = [sample.text for sample in drawn]
    if not table:
        return None
    if config.mixture == "likelihood":
        return mix_by_likelihood(table, seed=config.seed)
    costs: dict[str, Sequence[float]] = {}
    for arm, drafts in texts.items():
        if "cost_model" in config.needs:
            encoded = [policy.encoder.tree(e.context, [text]) for e, text in zip(shown, drafts, strict=True)]
            costs[arm] = predicted_costs(run, policy, [tree for tree in encoded if tree])[0].tolist()
        else:
            costs[arm] = cost(drafts, [e.edit for e in shown]).tolist()
    return mix_by_cost(costs, seed=config.seed)


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)
