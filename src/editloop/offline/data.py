"""The data of a fit: the two parts of the log as examples, and the completions that each trial is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from editloop.edits import Cost, Record, split
from editloop.errors import EmptyViewError
from editloop.offline.config import FitConfig, Trial
from editloop.offline.cost_model.preparation import CostEstimates, estimate_costs
from editloop.offline.examples import EDIT, Example, ExampleSet, check_window, make_examples
from editloop.offline.methods import METHODS
from editloop.offline.reference import reference_of, reference_pass
from editloop.offline.validation import TrialRows
from editloop.policy import Policy, RunFolder, processes
from editloop.progress import ProgressCallback, counter

__all__ = [
    "FitData",
    "add_estimates",
    "encode_log",
    "feasible",
    "longest_edit",
    "trial_rows",
    "with_log_limits",
]

LONG_EDIT = 0.99
"""The quantile of the edits' lengths that limits sampled responses, if the user sets no limit."""

SAMPLED_TOKENS, MOST_SAMPLES = 100_000, 4
"""The tokens that the completions sampled for methods that choose among them may have together, and the most
completions of a context, if the user asks for no number. A small base samples 100,000 tokens on two cores in
about a quarter of an hour, and each of them is trained on, too."""


@dataclass(frozen=True)
class FitData:
    """The encoded log of a fit.

    Attributes:
        train: The examples to train on.
        validation: The examples to validate on.
    """

    train: ExampleSet
    validation: ExampleSet

    @property
    def counts(self) -> Counter[str]:
        """The rows of both parts by what happened to them: cut, left out, unedited."""
        return self.train.counts + self.validation.counts


def encode_log(
    records: tuple[Record, ...], policy: Policy, config: FitConfig, callback: ProgressCallback
) -> FitData:
    """Split the log into its two parts and encode them; every row that is left out is reported.

    Args:
        records: The records of the log, in an order that does not depend on the file's.
        policy: The base, for its encoder.
        config: The fit's configuration.
        callback: Receives what was counted.

    Raises:
        EmptyViewError: A part has no row that one of the methods needs, or no edit fits into the window.
    """
    parts = split(records, by=config.split_by, validation=config.validation, seed=config.seed)
    validation = parts.validation[: config.validation_rows]
    data = FitData(make_examples(parts.train, policy.encoder), make_examples(validation, policy.encoder))
    check_window(parts.train, data.train, policy.encoder)
    callback.message(
        f"rows: {len(data.train.examples)} to train on ({len(data.train.pairs)} edited), "
        f"{len(data.validation.examples)} to validate on ({len(data.validation.pairs)} edited)"
    )
    for reason, count in data.counts.items():
        callback.message(f"  {count} rows: {reason}")
    if surplus := len(parts.validation) - len(validation):
        callback.message(f"  {surplus} rows: above the limit of validation rows")
    for name in config.methods:
        method = METHODS.get(name)
        for part, found in (("train", data.train), ("validation", data.validation)):
            if not method.suffices(found.examples):
                seen = ", ".join(f"{n} {reason}" for reason, n in data.counts.items())
                raise EmptyViewError(
                    f"{method.title} needs {method.learns_from}, and the {part} part lacks them",
                    seen=seen or f"{len(records)} rows in the log",
                    do="give more rows, or choose other --methods",
                )
    return data


def longest_edit(examples: Sequence[Example]) -> int:
    """The length in tokens that `LONG_EDIT` of the edits do not exceed."""
    lengths = [len(each.tree.continuations[each.completions.of(EDIT)]) for each in examples]
    return int(np.quantile(lengths, LONG_EDIT, method="higher"))


def with_log_limits(config: FitConfig, data: FitData, callback: ProgressCallback) -> FitConfig:
    """The configuration with what it leaves to the log: how long sampled texts may be, and their number.

    Args:
        config: The fit's configuration.
        data: The encoded log.
        callback: Receives what was chosen.
    """
    examples, found = (*data.train.examples, *data.validation.examples), dict[str, int]()
    longest = config.max_new_tokens
    if longest is None:
        longest = found["max_new_tokens"] = longest_edit(examples)
        callback.message(f"responses of at most {longest} tokens: {LONG_EDIT:.0%} of the edits are no longer")
    if config.num_samples is None:
        affordable = SAMPLED_TOKENS // (longest * len(examples))
        found["num_samples"] = min(max(affordable, 1), MOST_SAMPLES)
    return config.model_copy(update=found) if found else config


def add_estimates(
    run: RunFolder,
    data: FitData,
    policy: Policy,
    config: FitConfig,
    cost: Cost,
    callback: ProgressCallback,
) -> tuple[FitData, CostEstimates | None]:
    """Run the reference pass; where a method needs estimated costs, sample completions and estimate theirs.

    Args:
        run: The run folder, for the adapter of a tuned cost model.
        data: The encoded log.
        policy: The base.
        config: The fit's configuration.
        cost: The cost Δ.
        callback: Receives progress.

    Returns:
        The data with log π_ref and, where needed, estimated costs; and the cost model's estimates, or why
        there are none, if a method needs them.
    """
    if "cost_model" not in config.needs:
        return _with_reference(data, policy, config, callback), None
    found = estimate_costs(run, data.train.examples, data.validation.examples, policy, config, cost, callback)
    return (
        FitData(ExampleSet(found.train, data.train.counts), ExampleSet(found.held, data.validation.counts)),
        found,
    )


def feasible(
    config: FitConfig, estimates: CostEstimates | None, callback: ProgressCallback
) -> tuple[FitConfig, dict[str, str]]:
    """The configuration of what can be trained, and for each method that cannot, or not wholly, the reason.

    Args:
        config: The fit's configuration.
        estimates: From `add_estimates`.
        callback: Receives a warning for each method that is left out.

    Raises:
        EmptyViewError: Nothing can be trained.
    """
    if estimates is None or estimates.refused is None:
        return config, {}
    left, reasons = config.without("cost_model"), dict[str, str]()
    if not left.methods:
        raise estimates.refused
    for name in config.methods:
        lost = len(config.trials(name)) - len(left.trials(name))
        if lost:
            what = f"{lost} of its trials are left out" if name in left.methods else "left out"
            reasons[name] = f"{what}: {estimates.refused}"
            callback.warn(f"{name}: {reasons[name]}")
    return left, reasons


def _with_reference(data: FitData, policy: Policy, config: FitConfig, callback: ProgressCallback) -> FitData:
    """The data with log π_ref of the validation part, and of the pairs to train on where a loss needs it.

    The log π_ref of the pairs is computed here, because several methods need it. Whatever else a single
    method needs is computed when its trial begins (`trial_rows`), and not at all if an earlier process has
    finished that trial.
    """
    world = processes(policy.device).num_processes

    def scored(task: str, rows: Sequence[Example]) -> tuple[list[Example], bool]:
        return reference_pass(policy, rows, progress=counter(callback, task, len(rows), world))

    held, is_cached = scored("reference, validation", data.validation.examples)
    train, count = data.train, len(held)
    if "reference" in config.needs:
        pairs, pairs_cached = scored("reference", train.pairs)
        is_cached, count, left = is_cached and pairs_cached, count + len(pairs), iter(pairs)
        # The scored pairs take the places of the unscored ones; the other examples stay as they are.
        train = ExampleSet(tuple(next(left) if e.is_pair else e for e in train.examples), train.counts)
    callback.message(f"reference pass {'from the cache' if is_cached else 'done'}: {count} rows")
    return FitData(train, ExampleSet(tuple(held), data.validation.counts))


def trial_rows(trial: Trial, policy: Policy, data: FitData, callback: ProgressCallback) -> TrialRows:
    """The completions that a trial is trained and validated on, with log π_ref where it is needed.

    Args:
        trial: The method and its hyperparameters.
        policy: The base.
        data: The fit's data, from `add_estimates`.
        callback: Receives progress.
    """
    method, hyperparameters = trial.method, trial.hyperparameters
    train = [e for e in data.train.examples if method.rows(e)]
    held = [e for e in data.validation.examples if method.rows(e)]
    rows = [method.completions(part, hyperparameters) for part in (train, held)]
    # The validation figure of the base itself is computed from log π_ref, so the validation rows need it
    # even where the loss does not.
    wanted = [("train", "reference" in trial.needs), ("validation", True)]
    for part, (task, is_needed) in zip(rows, wanted, strict=True):
        unknown = [i for i, each in enumerate(part) if is_needed and each.reference is None]
        if unknown:
            world = processes(policy.device).num_processes
            progress = counter(callback, f"{method.name}, reference, {task}", len(unknown), world)
            found, _ = reference_of(policy, [part[i] for i in unknown], progress=progress)
            for i, each in zip(unknown, found, strict=True):
                part[i] = each
    return TrialRows(rows[0], rows[1], data.validation.examples, held)
