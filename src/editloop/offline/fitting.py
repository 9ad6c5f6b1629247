"""`fit`: from a log to trained policies, all methods in one process from one load of the base.

A fit that was killed is continued by calling it again with the same arguments. Finished trainings are kept,
the interrupted one continues from its last checkpoint, and the result is the same (`editloop.offline.resume`
says why).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from editloop.edits import Cost, Log, Record, get_cost, row_hashes
from editloop.errors import ConfigError
from editloop.offline.alarms import SampleCheck, check_samples
from editloop.offline.config import FitConfig
from editloop.offline.cost_model.saved import save_cost_model
from editloop.offline.countdown import Countdown
from editloop.offline.data import (
    FitData,
    add_estimates,
    encode_log,
    feasible,
    with_costs,
    with_log_limits,
    with_references,
)
from editloop.offline.logging_policies import LoggedPolicy
from editloop.offline.mixing import mix_policies
from editloop.offline.plan import FitPlan, make_plan
from editloop.offline.report import show_weights, write_run_report
from editloop.offline.resume import initial_manifest, open_run, run_identity
from editloop.offline.selection import train_method
from editloop.offline.start import find_start
from editloop.policy import Policy, RunFolder, check_device, load_base, processes
from editloop.policy.manifest import Manifest, MixtureRecord
from editloop.policy.memory import HeapLimit, parse_size
from editloop.progress import ProgressCallback, WarningCallback, counter

__all__ = ["fit", "plan_fit"]


def fit(
    log: Log | Sequence[Record],
    base: str | Path | Policy,
    out: str | Path,
    config: FitConfig | None = None,
    *,
    read: dict[str, Any] | None = None,
    policies: Mapping[str, LoggedPolicy] | None = None,
    report: bool = True,
    callback: ProgressCallback | None = None,
) -> RunFolder:
    """Train policies from a log.

    Long because it is the whole pipeline, to be read from top to bottom.

    Args:
        log: What `editloop.read_log` returns, or records.
        base: A base as `load_base` takes it, or a loaded base.
        out: The run folder; an interrupted fit in it is continued.
        config: The configuration; by default `FitConfig()`.
        read: What was read, for the record in `run.json`; by default what a `Log` says of itself.
        policies: Where the policies are that wrote the log, by their names in it, for `reference: logged`;
            by default what the log itself knows (`log_policies`).
        report: Whether to write `report.html`, which takes about a second.
        callback: Receives decisions, alarms and progress: an object of your own, or what
            `editloop.show_progress` returns. Without one, alarms are Python warnings (`EditLoopWarning`).

    Returns:
        The finished run folder.

    Raises:
        EmptyViewError: A method has no row to learn from or to be validated on.
        RunError: The folder belongs to another configuration, or cannot be written; or the policy of `start`
            is missing, damaged or of another base.
        ModelError: The base cannot be loaded or used.
        ConfigError: All weights of a quantised base should be trained, the base is on the wrong GPU, a batch
            cannot be divided among the processes, or the policy of `start` has no adapter of this shape.
    """
    config, callback, run = config or FitConfig(), callback or WarningCallback(), RunFolder(out)
    policy = base if isinstance(base, Policy) else _load(base, config)
    state = processes(policy.device)
    _check_base(policy, config)
    start = find_start(policy, config)
    for line in policy.decisions:
        callback.message(line)
    if start is not None:
        callback.message(f"start: the adapter of {start.arm}")

    # The log becomes token ids.
    records = _in_own_order(log)
    data = replace(encode_log(records, policy, config, callback), start=start)
    data = with_references(data, log, policies, policy, config, callback)
    data, config = with_costs(data, config, policy), with_log_limits(config, data, callback)

    # The run folder is new, or holds this very fit: to be continued, or finished.
    identity = run_identity(policy, config, data)
    earlier = open_run(run, identity)
    if state.is_main_process:
        run.remove_leftovers()
    state.wait_for_everyone()  # no process may write before all have read what the folder held
    if earlier is not None and earlier.status == "done":
        callback.message(
            f"nothing to do: {run.path} holds the finished run of this log, base and configuration"
        )
        # An earlier process was killed between the manifest and its last steps, or was asked for no report.
        if state.is_main_process:
            shutil.rmtree(run.work, ignore_errors=True)
            if report and not run.report.is_file():
                write_run_report(run)
        return run

    # How long it will take, in how much memory, and how a step is divided for that.
    trained = list(earlier.policies) if earlier else []
    plan = make_plan(policy, config, data, trained=trained)
    if trained:
        callback.message(f"trained already: {', '.join(trained)}")
    for line in plan.lines():
        callback.message(line)
    callback = countdown = Countdown(callback, plan)

    # What the base says: log π_ref, estimated costs, and the samples that the policies are compared with.
    cost = get_cost(config.cost, tokenize=policy.encoder.tokenize)
    with HeapLimit(plan.heap, policy.device):
        data, estimates = add_estimates(run, data, policy, config, cost, callback)
        asked, (config, declined) = config, feasible(config, estimates, callback)
        base_samples = _sample_base(policy, config, data, cost, callback)
    manifest = initial_manifest(
        identity=identity,
        read=read or _described(log, len(records)),
        data=data,
        policy=policy,
        config=asked,
        base_samples=base_samples,
        cost_model=estimates.report if estimates else None,
        declined=declined,
        policies=earlier.policies if earlier else {},
    )
    if state.is_main_process:
        run.write_manifest(manifest)
        run.write_rows(row_hashes(records))
        if estimates is not None and estimates.model is not None:
            save_cost_model(run, estimates.model, tuned=(estimates.report or {})["kind"] == "tuned")
    state.wait_for_everyone()

    # Each method's trials are trained, and the best is kept.
    for method in config.methods:
        if method in manifest.policies:
            continue
        countdown.begin(method)
        own = plan.config_for(method, config)
        with HeapLimit(plan.heap, policy.device):
            manifest.policies[method] = train_method(run, policy, method, own, data, base_samples, callback)
        if state.is_main_process:
            run.write_manifest(manifest)
    state.wait_for_everyone()  # the mixture reads the manifest in every process

    # Several policies make a mixture.
    if config.mixture != "none" and len(config.methods) > 1:
        mixture = mix_policies(run, policy, config, data.validation.examples, cost)
        if mixture is not None:
            callback.message(f"mixture by {mixture.by}: {show_weights(mixture.weights, mixture.errors)}")
            manifest.mixture = MixtureRecord.model_validate(mixture.to_json(), strict=False)
    manifest.status = "done"
    if state.is_main_process:
        _finish(run, manifest, report)
    state.wait_for_everyone()
    return run


def plan_fit(
    log: Log | Sequence[Record],
    base: str | Path | Policy,
    config: FitConfig | None = None,
    *,
    policies: Mapping[str, LoggedPolicy] | None = None,
    callback: ProgressCallback | None = None,
) -> FitPlan:
    """Plan a fit without a run folder: what `fit` would take; nothing is trained and nothing written.

    Args:
        log: As for `fit`.
        base: As for `fit`.
        config: As for `fit`.
        policies: As for `fit`.
        callback: Receives decisions and progress.

    Raises:
        ConfigError: The memory is too small, or as for `fit`.
        RunError: As for `fit`, of the policy of `start`.
        EmptyViewError: As for `fit`.
        ModelError: As for `fit`.
    """
    config, callback = config or FitConfig(), callback or WarningCallback()
    policy = base if isinstance(base, Policy) else _load(base, config)
    _check_base(policy, config)
    start = find_start(policy, config)
    data = replace(encode_log(_in_own_order(log), policy, config, callback), start=start)
    data = with_references(data, log, policies, policy, config, callback)
    data = with_costs(data, config, policy)
    return make_plan(policy, with_log_limits(config, data, callback), data)


def _load(base: str | Path, config: FitConfig) -> Policy:
    """The base, in fp32 if all its weights are trained: their small updates would vanish in bf16's 8 bits."""
    return load_base(
        base,
        max_length=config.max_length,
        dtype="float32" if config.full else "auto",
        memory=parse_size(config.memory) if config.memory else None,
    )


def _check_base(policy: Policy, config: FitConfig) -> None:
    """Refuse a base that this process cannot train.

    Raises:
        ConfigError: It is on another GPU; the launcher asks for FSDP; or all weights should be trained and it
            is quantised, or not in float32.
    """
    check_device(policy.device, processes(policy.device))
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        # Each process scores rows of its own, so their forwards are not the same in number, and those of a
        # divided base would wait for each other.
        raise ConfigError(
            "a base is not divided among processes (FSDP), because each of them reads rows of its own",
            do="launch without FSDP; --quantize 4bit and --gradient-checkpointing take less memory",
        )
    if config.full and policy.quantize is not None:
        raise ConfigError(
            "the weights of a quantised base cannot be trained",
            seen=policy.quantize,
            do="drop --full or --quantize",
        )
    if config.full and policy.precision != "float32":
        raise ConfigError(
            "all weights are trained in float32, because their small updates would vanish in 16 bits",
            seen=policy.precision,
            do="load the base with dtype float32",
        )


def _in_own_order(log: Log | Sequence[Record]) -> tuple[Record, ...]:
    """The records in an order that depends on their ids alone."""
    # A log that was shuffled, or read from another file, gives the same fit. The validation part is cut to
    # its limit by taking its first rows. In the order of the log they might all be of one user or one day.
    return tuple(sorted(log, key=lambda record: hashlib.blake2b(record.id.encode()).digest()))


def _described(log: Log | Sequence[Record], rows: int) -> Mapping[str, Any]:
    """What was read, for the record."""
    if not isinstance(log, Log):
        return {"rows": rows}
    found = log.report
    about = {"path": str(found.path), "sha256": found.sha256, "rows": found.rows_read}
    return about | ({"users": list(found.users)} if found.users else {})


def _sample_base(
    policy: Policy, config: FitConfig, data: FitData, cost: Cost, callback: ProgressCallback
) -> SampleCheck | None:
    """What sampled responses of the base look like; the alarms compare the policies' with them."""
    if config.validation_samples:
        callback.message(f"cost {cost.name}, between a sampled response and the row's edit")
    shown = list(data.validation.examples[: config.validation_samples])
    return check_samples(
        policy,
        shown,
        cost,
        seed=config.seed,
        max_new_tokens=config.longest_response,
        progress=counter(callback, "base, samples", len(shown)),
    )


def _finish(run: RunFolder, manifest: Manifest, report: bool) -> None:
    """Write the final manifest, remove the checkpoints, and write the report if it was asked for."""
    # The manifest comes first: from then on the run is finished, whatever happens to the work folder. The
    # next call of `fit` does what a kill left undone here.
    run.write_manifest(manifest)
    shutil.rmtree(run.work, ignore_errors=True)
    if report:
        write_run_report(run)
