"""Fit the cost model on the logged responses, judge it, and predict the cost of every completion (Eq. 5).

This module is given features and costs; `editloop.offline.cost_model.preparation` computes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.estimates import LEAST, Estimate, Floats, cross_validated_r2
from editloop.offline.config import CostModelKind
from editloop.offline.cost_model.fidelity import Fidelity, fidelity
from editloop.offline.cost_model.ridge import CostModel, fit_cost_model
from editloop.offline.examples import Completions, Example
from editloop.offline.reference import Scored
from editloop.policy import context_columns

__all__ = ["FittedCosts", "cross_validated", "fit_to_responses", "tuning_rows", "with_estimates"]

HEADS = 20
"""Number of bootstrap regressions."""

MOST_CROSSED = 4_000
"""Limit on the rows of the cross-validation, which fits the regression five times."""


@dataclass(frozen=True)
class FittedCosts:
    """A cost model that was fitted on the responses of a log.

    Attributes:
        model: The cost model.
        report: Its kind, its settings, and its fidelity: by cross-validation, and on the validation part
            beside baselines that know only the length, or nothing.
    """

    model: CostModel
    report: dict[str, Any]

    @property
    def objection(self) -> str | None:
        """Why nothing should be learned from its predictions; None if there is no reason."""
        found = self.report["cross_validated"]
        if found is None:
            return f"fewer than {LEAST} contexts cannot tell whether the cost model predicts anything"
        if not found["r2"] > 0:
            return "the cost model predicts the costs of new contexts no better than their mean does"
        return None


def fit_to_responses(
    train: Sequence[Example],
    held: Sequence[Example],
    features: Mapping[CostModelKind, NDArray[np.float32]],
    costs: NDArray[np.float64],
    *,
    seed: int = 0,
) -> FittedCosts:
    """Fit a cost model of each kind on the train part's responses, and take what validates best.

    Args:
        train: Examples to train on [n].
        held: Examples to validate on [m].
        features: The kinds to try, each with its features of the responses of `train` and `held` [n + m, F].
            Those of the kind `tuned` were tuned on the first `tuning_rows(n)` of them.
        costs: The costs Δ(y, y') of the responses [n + m].
        seed: The seed of the cost model and of the cross-validation.
    """
    examples, n = (*train, *held), len(train)
    tried: dict[CostModelKind, tuple[CostModel, Fidelity]] = {}
    errors = {}
    for kind, table in features.items():
        own = slice(_first_row(kind, n), n)
        heads = HEADS if kind == "bootstrap" else 0
        context = context_columns(table.shape[1])
        model = fit_cost_model(table[own], costs[own], context=context, heads=heads, seed=seed)
        mean, spread = model.predict(table[n:])
        tried[kind] = model, fidelity(mean, spread, costs[n:])
        errors[kind] = float(np.mean((mean - costs[n:]) ** 2))
    chosen = min(errors, key=lambda kind: errors[kind])
    model, found = tried[chosen]
    first = _first_row(chosen, n)
    crossed = cross_validated(features[chosen][first:], costs[first:], examples[first:], seed)
    report: dict[str, Any] = {
        "kind": chosen,
        "settings": dict(model.settings),
        "noise": model.noise,
        # RL's β weighs log-probabilities against costs. In units of the mean cost, the same β suits a share
        # of the words and a count of characters. Absolute values, because a cost may be a negated reward.
        "unit": float(np.abs(costs[:n]).mean()) or 1.0,
        "cross_validated": crossed
        and {"r2": crossed.value, "low": crossed.low, "high": crossed.high, "contexts": crossed.n},
        "model": asdict(found),
        **_baselines(examples, costs, n),
        "tried": {kind: asdict(figures) for kind, (_, figures) in tried.items()},
    }
    return FittedCosts(model, report)


def _first_row(kind: CostModelKind, n: int) -> int:
    """The first of n rows of the train part that a cost model is fitted on."""
    # Tuned features fit the costs of the rows that they were tuned on better than those of new rows. A
    # regression on the same rows would underestimate its uncertainty, so it is fitted on the others.
    return tuning_rows(n) if kind == "tuned" else 0


def cross_validated(
    features: NDArray[np.float32], costs: NDArray[np.float64], examples: Sequence[Example], seed: int
) -> Estimate | None:
    """The share of the costs' variance that a cost model predicts in contexts that it was not fitted on.

    Everything that the fit chooses is chosen again in each fold, so the figure owes nothing to the choice, as
    the least of many leave-one-out errors does. The validation part alone is often too small to tell.

    Args:
        features: Features of responses [n, F].
        costs: Their costs [n].
        examples: Their examples, which say whose contexts are the same [n].
        seed: The seed of the folds, of the random features and of the interval.

    Returns:
        R² with its interval by bootstrap over contexts; None if there are fewer than `LEAST` contexts, or if
        all costs are equal.
    """
    width, generator = context_columns(features.shape[1]), np.random.default_rng(seed)
    rows = np.sort(generator.permutation(len(costs))[:MOST_CROSSED])
    numbers: dict[tuple[int, ...], int] = {}
    contexts = np.array([numbers.setdefault(examples[i].tree.context, len(numbers)) for i in rows])

    # Without bootstrap regressions: their mean predicts as the one regression does, and takes many times as
    # long to fit.
    def predict(x: Floats, y: Floats, new: Floats) -> Floats:
        return fit_cost_model(x, y, context=width, seed=seed).predict(new)[0]

    return cross_validated_r2(predict, features[rows].astype(np.float64), costs[rows], contexts, generator)


def with_estimates(
    examples: Sequence[Example],
    completions: Sequence[Completions],
    scored: Sequence[Scored],
    fitted: FittedCosts,
) -> list[Example]:
    """The examples with their completions, log π_ref, and estimated costs in the unit of the report.

    Args:
        examples: The examples [n].
        completions: The completions of each; the edit and the response come first [n].
        scored: Log-probabilities of the completions under the reference, and the features that the cost
            model was fitted on [n].
        fitted: The cost model.
    """
    unit, estimated = fitted.report["unit"], list[Example]()
    predicted = _predict(fitted.model, [each.features for each in scored])
    for example, texts, one, (mean, spread) in zip(examples, completions, scored, predicted, strict=True):
        known = replace(
            texts,
            reference=one.log_probs,
            cost=tuple((mean / unit).tolist()),
            spread=tuple((spread / unit).tolist()),
        )
        estimated.append(replace(example, sampled=known))
    return estimated


def tuning_rows(rows: int) -> int:
    """How many of the train part's first rows features are tuned on; the regression is fitted on the others.

    Args:
        rows: Number of rows of the train part.
    """
    return rows // 2


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
