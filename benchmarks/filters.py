"""Filters that leave rows with doubtful edits out of a log, without knowing which of them are wrong.

- `agreement`: somebody else edits the same drafts; the rows are kept whose two edits differ least.
- `predicted`: a cost model is fitted to the other rows; those are kept whose cost is nearest to what it
  predicts.
- `tests`: of code, the rows are kept whose edit passes the tests of its request.

The first two keep a share of the rows that is stated beforehand, because a log does not say how much of it
is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.editors import get_editor
from editloop.edits import Record, context_text, get_cost
from editloop.lab import LabDomain
from editloop.offline import fit_cost_model, make_examples
from editloop.offline.reference import feature_pass
from editloop.policy import Policy

KEPT = 0.7
"""The share of the rows that the filters by agreement and by prediction keep."""

FOLDS = 5

SOMEBODY_ELSE = 500
"""Added to the seed of the second user, whose mistakes are others."""

Filter = Callable[[Sequence[Record], str, LabDomain, Policy], Sequence[Record]]


def keep_rows(name: str, rows: Sequence[Record], editor: str, world: LabDomain, base: Policy) -> list[Record]:
    """Return the rows of a log that a filter keeps, in their order.

    Args:
        name: One of `FILTERS`.
        rows: The rows.
        editor: The name of the user who edited them.
        world: The domain.
        base: The policy that wrote the drafts.
    """
    return list(FILTERS[name](rows, editor, world, base))


def _by_agreement(rows: Sequence[Record], editor: str, world: LabDomain, base: Policy) -> Sequence[Record]:
    other = get_editor(editor, world, seed=SOMEBODY_ELSE)
    again = [other.edit(context_text(row.context), row.response) for row in rows]
    return _least(rows, get_cost(world.cost)([row.edit or "" for row in rows], again))


def _by_prediction(rows: Sequence[Record], editor: str, world: LabDomain, base: Policy) -> Sequence[Record]:
    examples = make_examples(rows, base.encoder).examples
    scored, _ = feature_pass(base, [e.tree for e in examples])
    if len(examples) != len(rows):
        raise ValueError("a row could not be encoded, and would shift the others")
    features = np.stack(
        [one.features[e.completions.of("response")] for e, one in zip(examples, scored, strict=True)]
    )
    costs = get_cost(world.cost)([e.response for e in examples], [e.edit for e in examples])
    fold, predicted = np.arange(len(costs)) % FOLDS, np.zeros(len(costs))
    for i in range(FOLDS):
        model = fit_cost_model(features[fold != i], costs[fold != i])
        predicted[fold == i] = model.predict(features[fold == i])[0]
    return _least(rows, np.abs(costs - predicted))


def _by_tests(rows: Sequence[Record], editor: str, world: LabDomain, base: Policy) -> Sequence[Record]:
    return [row for row in rows if all(world.outcomes(context_text(row.context), row.edit or "").values())]


def _least(rows: Sequence[Record], doubts: np.ndarray) -> list[Record]:
    """The share of rows that is kept, of those with the least doubt."""
    order = np.argsort(doubts, kind="stable")[: round(KEPT * len(rows))]
    return [rows[i] for i in sorted(order)]


FILTERS: Mapping[str, Filter] = {"agreement": _by_agreement, "predicted": _by_prediction, "tests": _by_tests}
