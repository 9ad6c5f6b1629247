"""Figures of a policy on test rows, with intervals: likelihoods of edits, and a sampled response of each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.edits import context_text, get_cost
from editloop.edits.cost import charge_unfinished
from editloop.offline.examples import EDIT, Example
from editloop.offline.scoring import score
from editloop.policy import Policy
from editloop.progress import ProgressCallback, counter

__all__ = ["SEED", "Figure", "Rows", "bootstrapped", "figures_of", "measure_rows", "resampled_rows"]

RESAMPLES = 2000
SEED = 7
"""The seed of the sampled responses and of the bootstrap."""

Rows = dict[str, Any]
"""What is kept of a policy on test rows, one entry for each row in lists: `context`, `edit`, `log_prob`
(log π(y'|x)), `tokens` of the edit, `margin` (None where the response was accepted), a sampled response
(`sample`), its `cost` against the edit, `finished`, and its length over that of the edit (`ratio`)."""

Figure = Callable[[Any], float]
"""A figure of rows, given their places or a slice."""


def measure_rows(
    policy: Policy,
    examples: Sequence[Example],
    cost: str,
    longest: int,
    arm: str,
    callback: ProgressCallback,
) -> Rows:
    """Return the figures of a policy on test rows.

    Args:
        policy: The policy.
        examples: The test rows, with log π_ref for the margins [n].
        cost: The name of the cost of a sampled response against the row's edit.
        longest: Limit of a sampled response, in tokens.
        arm: The policy's name, for the progress.
        callback: Receives progress.
    """
    scores = score(policy, examples, progress=counter(callback, arm, len(examples)))
    samples = policy.sample(
        [each.context for each in examples],
        seed=SEED,
        max_new_tokens=longest,
        progress=counter(callback, f"{arm}, samples", len(examples)),
    )
    margins: list[float | None] = [None] * len(examples)
    for row, margin in zip(scores.pair.tolist(), scores.margin.tolist(), strict=True):
        margins[row] = margin
    edits = [each.edit for each in examples]
    cost_of, finished = get_cost(cost), [each.finished for each in samples]
    costs = np.asarray(cost_of([each.text for each in samples], edits), np.float64)
    return {
        "context": [context_text(each.context) for each in examples],
        "edit": edits,
        "log_prob": scores.chosen.tolist(),
        "tokens": [len(e.tree.continuations[e.completions.of(EDIT)]) for e in examples],
        "margin": margins,
        "sample": [each.text for each in samples],
        "cost": charge_unfinished(cost_of, costs, finished, edits).tolist(),
        "finished": finished,
        "ratio": [len(s.text) / max(1, len(edit)) for s, edit in zip(samples, edits, strict=True)],
    }


def resampled_rows(contexts: Sequence[str]) -> list[NDArray[np.int64]]:
    """Return bootstrap samples of rows [RESAMPLES], in which the rows of one context stay together."""
    groups: dict[str, list[int]] = {}
    for row, context in enumerate(contexts):
        groups.setdefault(context, []).append(row)
    rows = [np.array(each, np.int64) for each in groups.values()]
    generator = np.random.default_rng(SEED)
    return [
        np.concatenate([rows[i] for i in generator.integers(len(rows), size=len(rows))])
        for _ in range(RESAMPLES)
    ]


def figures_of(rows: Rows, base: Rows, draws: Sequence[NDArray[np.int64]]) -> dict[str, Any]:
    """Return each figure of a policy as its value and its 95% interval by bootstrap over contexts."""
    log_prob, before, tokens = (
        np.array(each, np.float64) for each in (rows["log_prob"], base["log_prob"], rows["tokens"])
    )
    margin = np.array([np.nan if each is None else each for each in rows["margin"]], np.float64)
    wins = np.where(np.isnan(margin), np.nan, (np.sign(margin) + 1) / 2)
    columns = {key: np.array(rows[key], np.float64) for key in ("cost", "finished", "ratio")}
    saved = np.array(base["cost"], np.float64) - columns["cost"]
    # A draft that was cut costs 1, so a policy that finishes more often saves by that alone.
    both = np.array(base["finished"], bool) & np.array(rows["finished"], bool)
    saved_finished = np.where(both, saved, np.nan)
    figures: dict[str, Figure] = {
        "log_prob_per_token": lambda i: float(log_prob[i].sum() / tokens[i].sum()),
        "gain_per_token": lambda i: float((log_prob[i] - before[i]).sum() / tokens[i].sum()),
        "reference_accuracy": lambda i: float(np.nanmean(wins[i])),
        "cost": lambda i: float(columns["cost"][i].mean()),
        "cost_saved": lambda i: float(saved[i].mean()),
        "cost_saved_where_both_finish": lambda i: float(np.nanmean(saved_finished[i])),
        "finished": lambda i: float(columns["finished"][i].mean()),
        "length_ratio": lambda i: float(columns["ratio"][i].mean()),
    }
    return bootstrapped(figures, draws)


def bootstrapped(figures: Mapping[str, Figure], draws: Sequence[NDArray[np.int64]]) -> dict[str, Any]:
    """Return the value of each figure on all rows, and its 95% interval; None where there is nothing to show.

    Args:
        figures: The figures by name.
        draws: Bootstrap samples of rows, from `resampled_rows`.
    """
    found = {}
    with warnings.catch_warnings():  # of a mean of no rows, which is NaN: nothing to compare
        warnings.simplefilter("ignore", RuntimeWarning)
        for name, figure in figures.items():
            low, high = np.nanquantile([figure(draw) for draw in draws], (0.025, 0.975))
            found[name] = {"value": _number(figure(slice(None))), "interval": [_number(low), _number(high)]}
    return found


def _number(value: float) -> float | None:
    """A figure as JSON has it: None where there is nothing to compute it of."""
    return None if np.isnan(value) else float(value)
