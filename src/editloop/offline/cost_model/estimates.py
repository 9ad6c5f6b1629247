"""The cost model fitted on the logged responses, and what it says of every completion (Eq. 5).

This module knows features and costs; how they come about is `editloop.offline.cost_model.preparation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.offline.config import CostModelKind
from editloop.offline.cost_model.ridge import CostModel, Fidelity, fidelity, fit_cost_model
from editloop.offline.examples import RESPONSE, Completions, Example
from editloop.offline.reference import Scored
from editloop.policy import context_columns

__all__ = ["CostEstimates", "estimate_from_features", "tuning_rows"]

HEADS = 20
"""Bootstrap regressions."""


@dataclass(frozen=True)
class CostEstimates:
    """Examples with their completions, log π_ref and estimated costs.

    Attributes:
        train: To train on.
        held: To validate on.
        model: The cost model.
        report: Its fidelity on the validation part, beside baselines that know the length or nothing.
    """

    train: tuple[Example, ...]
    held: tuple[Example, ...]
    model: CostModel
    report: dict[str, Any]


def estimate_from_features(
    train: Sequence[Example],
    held: Sequence[Example],
    completions: Sequence[Completions],
    scored: Sequence[Scored],
    costs: NDArray[np.float64],
    *,
    kind: CostModelKind = "ridge",
    tuned: Sequence[NDArray[np.float32]] = (),
    seed: int = 0,
) -> CostEstimates:
    """Fit the cost model on the train part's responses, and estimate the cost of every completion.

    Args:
        train: Examples to learn from [n].
        held: Examples to validate on [m].
        completions: Those of `train` before those of `held` [n + m].
        scored: Of their trees, from `feature_pass` [n + m].
        costs: What the responses cost, Δ(y, y') [n + m].
        kind: Of the cost model; `auto` takes the one with the least square error on `held`.
        tuned: Features of the trees that were tuned on the first `tuning_rows(n)` of `train`, for the kinds
            that need them [n + m].
        seed: Of the cost model.
    """
    examples, n = (*train, *held), len(train)
    kinds: tuple[CostModelKind, ...] = ("ridge", "bootstrap", "tuned") if kind == "auto" else (kind,)
    tried: dict[str, tuple[CostModel, Sequence[NDArray[np.float32]], Fidelity]] = {}
    errors = {}
    for each in kinds:
        tables = tuned if each == "tuned" else [one.features for one in scored]
        features = np.stack(
            [table[each.of(RESPONSE)] for each, table in zip(completions, tables, strict=True)]
        )
        own = slice(tuning_rows(n) if each == "tuned" else 0, n)  # not the rows that features were tuned on
        model = fit_cost_model(
            features[own],
            costs[own],
            context=context_columns(features.shape[1]),
            heads=HEADS if each == "bootstrap" else 0,
            seed=seed,
        )
        mean, spread = model.predict(features[n:])
        tried[each] = model, tables, fidelity(mean, spread, costs[n:])
        errors[each] = float(np.mean((mean - costs[n:]) ** 2))
    chosen = min(errors, key=lambda each: errors[each])
    model, tables, found = tried[chosen]
    unit = float(np.abs(costs[:n]).mean()) or 1.0
    estimated = []
    predicted = _predict(model, tables)
    for example, texts, one, (mean, spread) in zip(examples, completions, scored, predicted, strict=True):
        known = replace(
            texts,
            reference=one.log_probs,
            cost=tuple((mean / unit).tolist()),
            spread=tuple((spread / unit).tolist()),
        )
        # The pass over all completions has seen the edit and the response, too.
        logged = example.completions.with_reference(one.log_probs[: len(example.completions)])
        estimated.append(replace(example, completions=logged, sampled=known))
    lengths = np.array([float(len(e.response.split())) for e in examples])
    report = {
        "kind": chosen,
        "settings": dict(model.settings),
        "noise": model.noise,
        "unit": unit,
        "model": asdict(found),
        "length": asdict(_baseline(np.stack([lengths, np.log1p(lengths)], axis=1), costs, n)),
        "mean": asdict(_baseline(np.empty((len(costs), 0)), costs, n)),
        "tried": {name: asdict(figures) for name, (_, _, figures) in tried.items()},
    }
    return CostEstimates(tuple(estimated[:n]), tuple(estimated[n:]), model, report)


def tuning_rows(rows: int) -> int:
    """How many of the train part's rows, the first, features are tuned on; the model gets the rest."""
    return rows // 2


def _predict(
    model: CostModel, tables: Sequence[NDArray[np.float32]]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """f̂ and u of each table's rows; many tables at a time."""
    for start in range(0, len(tables), 500):
        part = tables[start : start + 500]
        ends = np.cumsum([len(table) for table in part])[:-1]
        yield from zip(*(np.split(each, ends) for each in model.predict(np.concatenate(part))), strict=True)


def _baseline(columns: NDArray[np.float64], costs: NDArray[np.float64], n: int) -> Any:
    """The fidelity of least squares on these columns and a constant; u is the error in training."""
    design = np.hstack([np.ones((len(costs), 1)), columns])
    weights = np.linalg.lstsq(design[:n], costs[:n], rcond=None)[0]
    prediction = design @ weights
    error = np.full(len(costs) - n, float((prediction[:n] - costs[:n]).std()))
    return fidelity(prediction[n:], error, costs[n:])
