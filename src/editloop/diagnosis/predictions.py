"""The findings that need a model: how likely the edits are to the base, and how predictable costs are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from editloop.diagnosis.model import Finding
from editloop.diagnosis.rows import AnsweredRows
from editloop.estimates import LEAST, Estimate, Floats, cross_validated_r2, sample_median
from editloop.progress import ProgressCallback, counter

if TYPE_CHECKING:
    from editloop.offline.examples import Example
    from editloop.policy import Policy

__all__ = ["by_base", "by_length"]

MOST_READ = 1_000
"""The most rows that the base reads; they are drawn at random."""

COVERAGE, PREDICTED = "coverage", "predicted cost"
R2 = "cross-validated R²"


def by_length(log: AnsweredRows, costs: Floats) -> list[Finding]:
    """Return the findings without a base: how well a response's length predicts its cost, and no coverage."""
    lengths = np.array([[len(each.response.split())] for each in log.records], np.float64)
    explanation = "the share of the cost's variance that the response's length predicts"
    return [
        Finding(COVERAGE, None, "nats", "the base's likelihoods of the texts are not known", "--base MODEL"),
        _predicted(cross_validated_r2(_regression, lengths, costs, log.clusters, log.rng), explanation),
    ]


def by_base(log: AnsweredRows, costs: Floats, base: Policy, callback: ProgressCallback) -> list[Finding]:
    """Return the base's coverage of the edits, and how well the cost model on its features predicts costs."""
    from editloop.offline import feature_pass, fit_cost_model, make_examples
    from editloop.offline.examples import EDIT, RESPONSE
    from editloop.policy import context_columns

    some = np.sort(log.rng.permutation(len(log.records))[:MOST_READ])
    place = {log.records[i].id: int(i) for i in some}
    made: Sequence[Example] = make_examples([log.records[i] for i in some], base.encoder).examples
    if not made:
        explanation = "this base can read none of the rows"
        return [Finding(COVERAGE, None, "nats", explanation), Finding(PREDICTED, None, R2, explanation)]
    # One pass gives the likelihoods of both sides and the features of the responses.
    progress = counter(callback, "likelihoods and features", len(made))
    scored, _ = feature_pass(base, [e.tree for e in made], progress=progress)
    sides = [(e.completions, one) for e, one in zip(made, scored, strict=True)]
    gaps = [
        one.log_probs[own.of(RESPONSE)] - one.log_probs[own.of(EDIT)] for own, one in sides if own.is_pair
    ]
    features = np.stack([one.features[own.of(RESPONSE)] for own, one in sides]).astype(np.float64)
    width = context_columns(features.shape[1])

    def cost_model(x: Floats, y: Floats, new: Floats) -> Floats:
        return fit_cost_model(x, y, context=width).predict(new)[0]

    rows = [place[e.id] for e in made]
    coverage = Finding(COVERAGE, None, "nats", f"the base can read only {len(gaps)} of the edited rows")
    if len(gaps) >= LEAST:
        explanation = (
            "the median of log π_ref(y) - log π_ref(y'): how much less likely an edit is to the base than "
            "the response that it replaces"
        )
        coverage = Finding(COVERAGE, sample_median(np.array(gaps), log.rng), "nats", explanation)
    explanation = "the share of the cost's variance that the cost model predicts"
    found = cross_validated_r2(cost_model, features, costs[rows], log.clusters[rows], log.rng)
    return [coverage, _predicted(found, explanation)]


def _predicted(found: Estimate | None, explanation: str) -> Finding:
    """The finding on predicted costs, or the reason why there is none."""
    if found is None:
        explanation = "there are too few rows, or their costs are all alike"
        return Finding(PREDICTED, None, R2, explanation, "more rows")
    return Finding(PREDICTED, found, R2, f"{explanation}, cross-validated")


def _regression(x: Floats, y: Floats, new: Floats) -> Floats:
    """Least squares on the length and its logarithm."""

    def design(lengths: Floats) -> Floats:
        return np.concatenate([np.ones_like(lengths), lengths, np.log1p(lengths)], axis=1)

    return np.asarray(design(new) @ np.linalg.lstsq(design(x), y, rcond=None)[0])
