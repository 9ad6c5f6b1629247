"""Give the examples of a fit estimated costs: sample completions, compute features, fit the cost model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from editloop.edits import Cost
from editloop.errors import EmptyViewError
from editloop.offline.config import FitConfig
from editloop.offline.cost_model.estimates import CostEstimates, estimate_from_features, tuning_rows
from editloop.offline.cost_model.sampled import add_sampled, sample_completions
from editloop.offline.cost_model.saved import model_name
from editloop.offline.cost_model.tuned import tuned_features
from editloop.offline.examples import Completions, Example
from editloop.offline.reference import feature_pass
from editloop.offline.report import show_number
from editloop.policy import Policy, RunFolder, processes
from editloop.progress import ProgressCallback, counter

__all__ = ["estimate_costs"]


def estimate_costs(
    run: RunFolder,
    train: Sequence[Example],
    held: Sequence[Example],
    policy: Policy,
    config: FitConfig,
    cost: Cost,
    callback: ProgressCallback,
) -> CostEstimates:
    """Sample completions, fit the cost model, and estimate the cost of every completion.

    Args:
        run: The run folder; its work folder gets the adapter of tuned features.
        train: Examples to train on.
        held: Examples to validate on.
        policy: The base.
        config: The fit's configuration.
        cost: The cost Δ.
        callback: Receives progress.

    Raises:
        EmptyViewError: A part has no context with two completions, or all costs are equal.
    """
    world = processes(policy.device).num_processes
    examples, n = (*train, *held), len(train)
    completions = _completions(examples, policy, config, callback)
    trees = [each.tree for each in completions]
    for part, mine in (("train", trees[:n]), ("validation", trees[n:])):
        if all(len(tree.continuations) < 2 for tree in mine):
            raise EmptyViewError(
                f"the cost model needs contexts with two completions or more, and the {part} part has none",
                seen=f"{len(mine)} rows, {config.num_samples} completions sampled for each",
                do="raise --num-samples, or leave out the methods that need a cost model",
            )
    scored, known = feature_pass(policy, trees, progress=counter(callback, "features", len(trees), world))
    total = sum(len(tree.continuations) for tree in trees)
    callback.message(f"features {'from the cache' if known else 'computed'}: {total} completions")
    costs = cost([e.response for e in examples], [e.edit for e in examples])
    if np.ptp(costs[:n]) == 0:  # a regression would fit the rounding, and RL would follow it
        raise EmptyViewError(
            "all costs are equal, so a cost model can learn nothing",
            seen=f"{costs[0]:g} in {n} rows",
            do="leave out the methods that need a cost model, or choose another --cost",
        )
    tuned: list[NDArray[np.float32]] = []
    # Features are tuned on one half of the train part, and the regression on them is fitted on the other.
    if config.cost_model in ("tuned", "auto"):
        callback.message("tuning features on the costs")
        first = tuning_rows(n)
        tuned = tuned_features(policy, train[:first], costs[:first], trees, config, run.work / "cost_model")
    estimates = estimate_from_features(
        train, held, completions, scored, costs, kind=config.cost_model, tuned=tuned, seed=config.seed
    )
    model, length = estimates.report["model"], estimates.report["length"]
    callback.message(
        f"cost model ({model_name(estimates.report)}): R² {show_number(model['r2'])}, correlation "
        f"{show_number(model['pearson'])} on {model['rows']} validation rows (by length alone "
        f"{show_number(length['r2'])}, {show_number(length['pearson'])})"
    )
    return estimates


def _completions(
    examples: Sequence[Example], policy: Policy, config: FitConfig, callback: ProgressCallback
) -> list[Completions]:
    """The edit, the response and the sampled completions of each example [n]."""
    sampled = sample_completions(
        policy,
        examples,
        config.num_samples,
        seed=config.seed,
        max_new_tokens=config.longest_response,
        progress=counter(
            callback, "sampled completions", len(examples), processes(policy.device).num_processes
        ),
    )
    unfinished = sum(not text.finished for texts in sampled for text in texts)
    if unfinished:
        callback.message(f"{unfinished} of {config.num_samples * len(examples)} sampled completions were cut")
    return add_sampled(policy, examples, sampled)
