"""The data of a fit: the two parts of the log as examples, and the completions that each trial is given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from editloop.edits import Cost, Record, get_cost, split
from editloop.errors import EmptyViewError
from editloop.offline.config import FitConfig, Trial
from editloop.offline.cost_model.preparation import CostEstimates, estimate_costs
from editloop.offline.examples import EDIT, Completions, Example, ExampleSet, check_window, make_examples
from editloop.offline.logging_policies import (
    LoggedPolicy,
    LoggingPolicies,
    find_logging_policies,
    log_policies,
)
from editloop.offline.methods import METHODS
from editloop.offline.reference import Scorer, reference_of
from editloop.offline.start import Start
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
    "with_costs",
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
        references: The policies that are the reference of the rows that they wrote.
        start: The policy at whose adapter the trainings begin; None for the base.
    """

    train: ExampleSet
    validation: ExampleSet
    references: LoggingPolicies = field(default_factory=LoggingPolicies)
    start: Start | None = None

    @property
    def examples(self) -> tuple[Example, ...]:
        """The examples of both parts."""
        return (*self.train.examples, *self.validation.examples)

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


def with_references(
    data: FitData,
    log: object,
    places: Mapping[str, LoggedPolicy] | None,
    policy: Policy,
    config: FitConfig,
    callback: ProgressCallback,
) -> FitData:
    """The data with the policies that are the reference of the rows that they wrote, if that is asked for.

    Args:
        data: The encoded log.
        log: What was read, which may know its policies.
        places: Where the policies are, in place of what the log knows.
        policy: The base.
        config: The fit's configuration.
        callback: Receives how many rows have which reference.
    """
    if config.reference == "base":
        return data
    known = log_policies(log) if places is None else places
    found = find_logging_policies((example.policy for example in data.examples), known, policy)
    callback.message(found.line(data.examples))
    if not found and any(found.without.values()):
        callback.warn("no row has the policy that wrote it as its reference (name run folders by --policies)")
    return replace(data, references=found)


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
    estimated = replace(
        data,
        train=ExampleSet(found.train, data.train.counts),
        validation=ExampleSet(found.held, data.validation.counts),
    )
    # The pass for the features has computed log π_ref by the base. What a method with a cost model looks at
    # was sampled from the base, and keeps it; the edit and the response beside may have another reference.
    return _with_logged_reference(estimated, policy, callback) if data.references else estimated, found


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


def with_costs(data: FitData, config: FitConfig, policy: Policy) -> FitData:
    """The data with what each edit cost, in units of the train part's mean cost, if a method needs it.

    Args:
        data: The encoded log.
        config: The fit's configuration.
        policy: The base, whose tokens some costs count.
    """
    if "cost" not in config.needs:
        return data
    cost = get_cost(config.cost, tokenize=policy.encoder.tokenize)
    texts = ([e.response for e in data.examples], [e.edit for e in data.examples])
    costs, n = cost(*texts), len(data.train.examples)
    costs = costs / (float(costs[:n].mean()) or 1.0)  # a log without any cost has nothing to teach either way
    priced = [replace(e, cost=float(c)) for e, c in zip(data.examples, costs, strict=True)]
    train = ExampleSet(tuple(priced[:n]), data.train.counts)
    return replace(data, train=train, validation=ExampleSet(tuple(priced[n:]), data.validation.counts))


def _with_reference(data: FitData, policy: Policy, config: FitConfig, callback: ProgressCallback) -> FitData:
    """The data with log π_ref of the validation part, and of the pairs to train on where a loss needs it.

    The log π_ref of the pairs is computed here, because several methods need it. Whatever else a single
    method needs is computed when its trial begins (`trial_rows`), and not at all if an earlier process has
    finished that trial.
    """
    held, is_cached = _scored("reference, validation", data.validation.examples, data, policy, callback)
    train, count = data.train, len(held)
    if "reference" in config.needs:
        pairs, pairs_cached = _scored("reference", train.pairs, data, policy, callback)
        is_cached, count = is_cached and pairs_cached, count + len(pairs)
        train = _replaced(train, pairs)
    callback.message(f"reference pass {'from the cache' if is_cached else 'done'}: {count} rows")
    return _compared(replace(data, train=train, validation=_replaced(data.validation, held)), callback)


def _with_logged_reference(data: FitData, policy: Policy, callback: ProgressCallback) -> FitData:
    """The data with log π_ref of the rows whose reference is not the base, in place of that by the base."""
    parts = []
    for part in (data.train, data.validation):
        mine = [example for example in part.examples if data.references.of(example) is not None]
        found, _ = _scored("reference", mine, data, policy, callback)
        parts.append(_replaced(part, found))
    return _compared(replace(data, train=parts[0], validation=parts[1]), callback)


def _scored(
    task: str, rows: Sequence[Example], data: FitData, policy: Policy, callback: ProgressCallback
) -> tuple[list[Example], bool]:
    """Examples with log π_ref of their edits and responses, and whether it came from the cache."""
    progress = counter(callback, task, len(rows), processes(policy.device).num_processes)
    found, known = data.references.score(policy, rows, [e.completions for e in rows], progress=progress)
    return [replace(e, completions=own) for e, own in zip(rows, found, strict=True)], known


def _replaced(part: ExampleSet, found: Sequence[Example]) -> ExampleSet:
    """A part of the log with some of its examples replaced by the same ones with log π_ref."""
    # Known by their trees, which scoring keeps: two records may have the same id.
    new = {id(example.tree): example for example in found}
    return ExampleSet(tuple(new.get(id(e.tree), e) for e in part.examples), part.counts)


def _compared(data: FitData, callback: ProgressCallback) -> FitData:
    """The data, after a warning for each policy that did not write its drafts as it is here."""
    for line in data.references.mismatches(data.examples):
        callback.warn(line)
    return data


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
    wanted = [("train", train, "reference" in trial.needs), ("validation", held, True)]
    for part, (task, examples, is_needed) in zip(rows, wanted, strict=True):
        unknown = [i for i, each in enumerate(part) if is_needed and each.reference is None]
        if unknown:
            world = processes(policy.device).num_processes
            progress = counter(callback, f"{method.name}, reference, {task}", len(unknown), world)
            mine, missing = [examples[i] for i in unknown], [part[i] for i in unknown]
            found, _ = data.references.score(policy, mine, missing, progress=progress)
            for i, each in zip(unknown, found, strict=True):
                part[i] = each
    if data.start is not None:
        rows[1] = _with_start(rows[1], range(len(held)), policy, data.start.scorer(policy))
    elif data.references and "cost_model" not in trial.needs:
        other = [i for i, example in enumerate(held) if data.references.of(example) is not None]
        rows[1] = _with_start(rows[1], other, policy)
    return TrialRows(rows[0], rows[1], data.validation.examples, held, data.start)


def _with_start(
    completions: Sequence[Completions], others: Iterable[int], policy: Policy, scorer: Scorer | None = None
) -> list[Completions]:
    """Completions with their log-probabilities by the policy at which training begins.

    Its figure is the one that a training has to improve on.

    Args:
        completions: The completions of n contexts.
        others: The indices of those whose reference may be another policy.
        policy: The base.
        scorer: The policy at which training begins; by default the base.
    """
    found, where = list(completions), list(others)
    scored, _ = reference_of(policy, [found[i] for i in where], scorer=scorer)
    for i, each in zip(where, scored, strict=True):
        found[i] = replace(found[i], start=each.reference)
    return found
