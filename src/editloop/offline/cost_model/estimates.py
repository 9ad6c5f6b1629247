"""Fit the cost model on the logged responses and predict the cost of every completion (Eq. 5).

This module is given features and costs; `editloop.offline.cost_model.preparation` computes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.offline.config import CostModelKind
from editloop.offline.cost_model.fidelity import Fidelity, fidelity
from editloop.offline.cost_model.ridge import CostModel, fit_cost_model
from editloop.offline.examples import RESPONSE, Completions, Example
from editloop.offline.reference import Scored
from editloop.policy import context_columns

__all__ = ["CostEstimates", "estimate_from_features", "tuning_rows"]

HEADS = 20
"""Number of bootstrap regressions."""


@dataclass(frozen=True)
class CostEstimates:
    """Examples with completions, log π_ref and estimated costs, and the model that estimated them.

    Attributes:
        train: The examples to train on.
        held: The examples to validate on.
        model: The cost model.
        report: Its fidelity on the validation part, beside baselines that know only the length, or nothing.
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
        train: Examples to train on [n].
        held: Examples to validate on [m].
        completions: The completions of `train`, then those of `held` [n + m].
        scored: Log-probabilities and features of their trees, from `feature_pass` [n + m].
        costs: The costs Δ(y, y') of the responses [n + m].
        kind: The kind of cost model; `auto` takes the kind with the least square error on `held`.
        tuned: Features of the trees [n + m], tuned on the first `tuning_rows(n)` of `train`, if `kind` needs
            them.
        seed: The seed of the cost model.
    """
    examples, n = (*train, *held), len(train)
    kinds: tuple[CostModelKind, ...] = ("ridge", "bootstrap", "tuned") if kind == "auto" else (kind,)
    tried: dict[str, tuple[CostModel, Sequence[NDArray[np.float32]], Fidelity]] = {}
    errors = {}
    for each in kinds:
        tables = tuned if each == "tuned" else [one.features for one in scored]
        features = _response_features(completions, tables)
        # Tuned features fit the costs of the rows that they were tuned on better than those of new rows. A
        # regression on the same rows would underestimate its uncertainty, so it is fitted on the others.
        own = slice(tuning_rows(n) if each == "tuned" else 0, n)
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
    # RL's β weighs log-probabilities against costs. In units of the mean cost, the same β suits a share of
    # the words and a count of characters. Absolute values, because a cost may be a negated reward.
    unit = float(np.abs(costs[:n]).mean()) or 1.0
    estimated = _with_estimates(examples, completions, scored, _predict(model, tables), unit)
    report = {
        "kind": chosen,
        "settings": dict(model.settings),
        "noise": model.noise,
        "unit": unit,
        "model": asdict(found),
        **_baselines(examples, costs, n),
        "tried": {name: asdict(figures) for name, (_, _, figures) in tried.items()},
    }
    return CostEstimates(tuple(estimated[:n]), tuple(estimated[n:]), model, report)


def tuning_rows(rows: int) -> int:
    """How many of the train part's first rows features are tuned on; the regression is fitted on the others.

    Args:
        rows: Number of rows of the train part.
    """
    return rows // 2


def _response_features(
    completions: Sequence[Completions], tables: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """The features of the response among the completions of each context [n, F]."""
    rows = zip(completions, tables, strict=True)
    return np.stack([table[texts.of(RESPONSE)] for texts, table in rows])


def _with_estimates(
    examples: Sequence[Example],
    completions: Sequence[Completions],
    scored: Sequence[Scored],
    predicted: Iterable[tuple[NDArray[np.float64], NDArray[np.float64]]],
    unit: float,
) -> list[Example]:
    """The examples with completions, log π_ref, and costs in units of `unit`."""
    estimated = []
    for example, texts, one, (mean, spread) in zip(examples, completions, scored, predicted, strict=True):
        known = replace(
            texts,
            reference=one.log_probs,
            cost=tuple((mean / unit).tolist()),
            spread=tuple((spread / unit).tolist()),
        )
        # The edit and the response come first among the completions (`add_sampled`), so their log π_ref is
        # known, too, and needs no second reference pass.
        logged = example.completions.with_reference(one.log_probs[: len(example.completions)])
        estimated.append(replace(example, completions=logged, sampled=known))
    return estimated


def _predict(
    model: CostModel, tables: Sequence[NDArray[np.float32]]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield f̂ and u of each table's rows.

    Tables are predicted 500 at a time: one by one is slow, and the products of all at once need much memory.
    """
    for start in range(0, len(tables), 500):
        part = tables[start : start + 500]
        ends = np.cumsum([len(table) for table in part])[:-1]
        yield from zip(*(np.split(each, ends) for each in model.predict(np.concatenate(part))), strict=True)


def _baselines(examples: Sequence[Example], costs: NDArray[np.float64], n: int) -> dict[str, Any]:
    """The fidelity of regressions that know only the response's length, or nothing."""
    # With the logarithm beside the length, the baseline can follow a cost that levels off in long responses.
    words = np.array([float(len(e.response.split())) for e in examples])
    return {
        "length": asdict(_baseline(np.stack([words, np.log1p(words)], axis=1), costs, n)),
        "mean": asdict(_baseline(np.empty((len(costs), 0)), costs, n)),
    }


def _baseline(columns: NDArray[np.float64], costs: NDArray[np.float64], n: int) -> Fidelity:
    """The fidelity of least squares on these columns and a constant, with the training error as u."""
    design = np.hstack([np.ones((len(costs), 1)), columns])
    weights = np.linalg.lstsq(design[:n], costs[:n], rcond=None)[0]
    prediction = design @ weights
    error = np.full(len(costs) - n, float((prediction[:n] - costs[:n]).std()))
    return fidelity(prediction[n:], error, costs[n:])
