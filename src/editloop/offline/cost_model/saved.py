"""Write the cost model into a run, and predict costs with it afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.edits import Cost
from editloop.errors import RunError
from editloop.io import atomic_folder
from editloop.offline.cost_model.fidelity import Fidelity, fidelity
from editloop.offline.cost_model.ridge import CostModel
from editloop.offline.disk import disk_errors
from editloop.offline.examples import RESPONSE, Example
from editloop.offline.reference import Scored, feature_pass
from editloop.policy import ContextTree, Policy, RunFolder, detach_adapter, load_adapter

__all__ = ["cost_fidelity", "model_name", "predicted_costs", "reads_base", "save_cost_model"]


def save_cost_model(run: RunFolder, model: CostModel, *, tuned: bool) -> None:
    """Save the cost model in the run, with the adapter that computes its features if they are tuned.

    Args:
        run: The run folder; the adapter is in its work folder.
        model: The cost model.
        tuned: Whether its features are tuned.

    Raises:
        RunError: The folder cannot be written to.
    """
    with atomic_folder(run.cost_model, RunError) as unfinished, disk_errors(run.path):
        model.save(unfinished)
        if tuned:
            # A copy, because a fit that is continued needs the adapter again to estimate the same costs.
            shutil.copytree(run.work / "cost_model", unfinished / "adapter")


def predicted_costs(
    run: RunFolder, base: Policy, trees: Sequence[ContextTree], *, cached: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predict costs with a run's cost model.

    Args:
        run: A run with a cost model.
        base: The run's base.
        trees: Trees with n continuations in all.
        cached: Whether the base's features are kept on disk for the next time.

    Returns:
        f̂ [n] and u [n] of the continuations, tree by tree, in the unit of the cost.

    Raises:
        RunError: The run has no cost model, or it is damaged.
    """
    model, adapter = CostModel.load(run.cost_model), run.cost_model / "adapter"
    # Tuned features are not cached: the key of the cache stands for the base and not for an adapter.
    if adapter.is_dir():
        tuned = load_adapter(base, adapter)
        try:
            features = tuned.features(trees)[1]
        finally:
            detach_adapter(tuned)
    elif cached:
        features = [each.features for each in feature_pass(base, trees)[0]]
    else:
        features = base.features(trees)[1]
    return model.predict(np.concatenate(features))


def reads_base(run: RunFolder) -> bool:
    """Whether a run has a cost model that predicts from the base's own features (`feature_pass`)."""
    return run.cost_model.is_dir() and not (run.cost_model / "adapter").is_dir()


def cost_fidelity(
    run: RunFolder,
    base: Policy,
    examples: Sequence[Example],
    cost: Cost,
    *,
    scored: Sequence[Scored] | None = None,
) -> Fidelity:
    """How well a run's cost model predicts what responses cost.

    Args:
        run: A run with a cost model.
        base: The run's base.
        examples: Examples that the run was not trained on [n].
        cost: The cost Δ.
        scored: The figures of the examples' trees from `feature_pass`, if they are known and the cost model
            `reads_base` [n].
    """
    costs = cost([e.response for e in examples], [e.edit for e in examples])
    if scored is None:
        found = predicted_costs(run, base, [e.completions.only(RESPONSE).tree for e in examples])
    else:
        rows = zip(examples, scored, strict=True)
        features = np.stack([one.features[e.completions.of(RESPONSE)] for e, one in rows])
        found = CostModel.load(run.cost_model).predict(features)
    return fidelity(*found, costs)


def model_name(report: Mapping[str, Any]) -> str:
    """A cost model in a few words.

    Args:
        report: `FittedCosts.report`.
    """
    settings = report["settings"]
    return f"{report['kind']}, {settings['features']}, strength {settings['ridge']:.3g}"
