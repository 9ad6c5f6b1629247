"""The cost model of a run: fitted on its log before RL trains, kept with the run, asked again afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.edits import Cost
from editloop.errors import EmptyViewError, RunError
from editloop.io import atomic_folder
from editloop.offline.alternatives import (
    Priced,
    alternative_trees,
    draw_responses,
    price_alternatives,
    tuning_rows,
)
from editloop.offline.config import FitConfig
from editloop.offline.cost_model import CostModel, Fidelity, fidelity
from editloop.offline.examples import Example
from editloop.offline.reference import feature_pass
from editloop.offline.report import show_number
from editloop.offline.trainer import disk_errors
from editloop.offline.tuned import tuned_features
from editloop.policy import ContextTree, Policy, RunFolder, detach_adapter, load_adapter, processes
from editloop.progress import ProgressCallback, counter

__all__ = ["model_name", "predicted_costs", "price", "save_cost_model", "told_costs"]


def price(
    run: RunFolder,
    train: Sequence[Example],
    held: Sequence[Example],
    policy: Policy,
    config: FitConfig,
    cost: Cost,
    callback: ProgressCallback,
) -> Priced:
    """The cost model, and the alternatives that RL chooses among with their price.

    Args:
        run: The run folder; an adapter for tuned features is made in its work folder.
        train: Examples to learn from.
        held: Examples to validate on.
        policy: The base.
        config: The fit's configuration.
        cost: Δ.
        callback: Receives progress.

    Raises:
        EmptyViewError: No context of a part has two alternatives to choose from, or all costs are equal.
    """
    world = processes(policy.device).num_processes
    examples, n = (*train, *held), len(train)
    drawn = draw_responses(
        policy,
        examples,
        config.candidates,
        seed=config.seed,
        max_new_tokens=config.max_new_tokens,
        progress=counter(callback, "responses to choose among", len(examples), world),
    )
    unfinished = sum(not draw.finished for draws in drawn for draw in draws)
    if unfinished:
        callback.message(f"{unfinished} of {config.candidates * len(examples)} drawn responses were cut")
    trees = alternative_trees(policy, examples, drawn)
    for part, mine in (("train", trees[:n]), ("validation", trees[n:])):
        if all(len(tree.continuations) < 2 for tree in mine):
            raise EmptyViewError(
                f"RL needs contexts with two alternatives or more, and the {part} part has none",
                seen=f"{len(mine)} rows, {config.candidates} responses drawn for each",
                do="raise --candidates, or leave rl out",
            )
    scored, known = feature_pass(policy, trees, progress=counter(callback, "features", len(trees), world))
    total = sum(len(tree.continuations) for tree in trees)
    callback.message(f"features {'from the cache' if known else 'gathered'}: {total} responses")
    costs = cost([e.response for e in examples], [e.edit for e in examples])
    if np.ptp(costs[:n]) == 0:
        raise EmptyViewError(
            "RL can learn nothing from costs that are all equal",
            seen=f"{costs[0]:g} in {n} rows",
            do="leave rl out, or take another --cost",
        )
    tuned: list[NDArray[np.float32]] = []
    if config.cost_model in ("tuned", "auto"):
        callback.message("tuning features on the costs")
        first = tuning_rows(n)
        tuned = tuned_features(policy, train[:first], costs[:first], trees, config, run.work / "cost_model")
    priced = price_alternatives(
        train, held, trees, scored, costs, kind=config.cost_model, tuned=tuned, seed=config.seed
    )
    model, length = priced.report["model"], priced.report["length"]
    callback.message(
        f"cost model ({model_name(priced.report)}): R² {show_number(model['r2'])}, correlation "
        f"{show_number(model['pearson'])} on {model['rows']} validation rows (by length alone "
        f"{show_number(length['r2'])}, {show_number(length['pearson'])})"
    )
    return priced


def save_cost_model(run: RunFolder, priced: Priced) -> None:
    """Keep the cost model, with the adapter that its features need if they are tuned.

    Raises:
        RunError: There is no space or permission to write.
    """
    with atomic_folder(run.cost_model, RunError) as unfinished, disk_errors(run.path):
        priced.model.save(unfinished)
        if priced.report["kind"] == "tuned":
            shutil.copytree(run.work / "cost_model", unfinished / "adapter")


def predicted_costs(
    run: RunFolder, base: Policy, trees: Sequence[ContextTree]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """f̂ and u, by a run's cost model, of the only continuation of each tree [n], [n].

    Args:
        run: A run that trained with RL.
        base: Its base.
        trees: A context and one continuation each [n].

    Raises:
        RunError: The run has no cost model, or it is damaged.
    """
    model, adapter = CostModel.load(run.cost_model), run.cost_model / "adapter"
    if adapter.is_dir():
        tuned = load_adapter(base, adapter)
        try:
            features = tuned.features(trees)[1]
        finally:
            detach_adapter(tuned)
    else:
        features = [each.features for each in feature_pass(base, trees)[0]]
    return model.predict(np.concatenate(features))


def told_costs(run: RunFolder, base: Policy, examples: Sequence[Example], cost: Cost) -> Fidelity:
    """How well a run's cost model tells what responses cost.

    Args:
        run: As of `predicted_costs`.
        base: Likewise.
        examples: Rows that the run did not train on.
        cost: Δ.
    """
    costs = cost([e.response for e in examples], [e.edit for e in examples])
    return fidelity(*predicted_costs(run, base, [e.response_tree for e in examples]), costs)


def model_name(report: Mapping[str, Any]) -> str:
    """A cost model in a few words."""
    settings = report["settings"]
    return f"{report['kind']}, {settings['features']}, strength {settings['ridge']:.3g}"
