"""Give the examples of a fit estimated costs, or say why that would teach nothing.

The cost model is fitted and judged on the responses of the log before any completion is sampled, because
sampling takes most of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from editloop.edits import Cost
from editloop.errors import EmptyViewError
from editloop.offline.config import CostModelKind, FitConfig
from editloop.offline.cost_model.estimates import FittedCosts, fit_to_responses, tuning_rows, with_estimates
from editloop.offline.cost_model.ridge import CostModel
from editloop.offline.cost_model.sampled import add_sampled, sample_completions
from editloop.offline.cost_model.saved import model_name
from editloop.offline.cost_model.tuned import tuned_features
from editloop.offline.examples import RESPONSE, Completions, Example
from editloop.offline.reference import Scored, feature_pass, with_reference
from editloop.offline.report import show_number
from editloop.policy import ContextTree, Policy, RunFolder, processes
from editloop.progress import ProgressCallback, counter

__all__ = ["CostEstimates", "estimate_costs"]


@dataclass(frozen=True)
class CostEstimates:
    """Examples with log π_ref and estimated costs, and the model that estimated them; or why there are none.

    Attributes:
        train: The examples to train on. They have completions with estimated costs unless `refused` is set.
        held: The examples to validate on, likewise.
        model: The cost model; None if `refused` is set.
        report: What `FittedCosts.report` says of it; None if none was fitted.
        refused: Why costs were not estimated, as the error of a fit that can do nothing without them.
    """

    train: tuple[Example, ...]
    held: tuple[Example, ...]
    model: CostModel | None = None
    report: dict[str, Any] | None = None
    refused: EmptyViewError | None = None


def estimate_costs(
    run: RunFolder,
    train: Sequence[Example],
    held: Sequence[Example],
    policy: Policy,
    config: FitConfig,
    cost: Cost,
    callback: ProgressCallback,
) -> CostEstimates:
    """Fit the cost model; if it predicts anything, sample completions and estimate the cost of each.

    Args:
        run: The run folder; its work folder gets the adapter of tuned features.
        train: Examples to train on.
        held: Examples to validate on.
        policy: The base.
        config: The fit's configuration.
        cost: The cost Δ.
        callback: Receives progress.
    """
    # One pass gives log π_ref, which all methods need, and the features.
    scored = _scored(policy, [e.tree for e in (*train, *held)], "features", callback)
    examples, n = with_reference((*train, *held), scored), len(train)
    known = CostEstimates(tuple(examples[:n]), tuple(examples[n:]))
    costs = cost([e.response for e in examples], [e.edit for e in examples])
    if np.ptp(costs[:n]) == 0:  # a regression would fit the rounding, and RL would follow it
        return replace(
            known,
            refused=EmptyViewError(
                "all costs are equal, so a cost model can learn nothing",
                seen=f"{costs[0]:g} in {n} rows",
                do="leave out the methods that need a cost model, or choose another --cost",
            ),
        )
    sources = _sources(run, examples, scored, costs[:n], policy, config, callback)
    features = {kind: source.of_responses(examples) for kind, source in sources.items()}
    fitted = fit_to_responses(known.train, known.held, features, costs, seed=config.seed)
    known = replace(known, report=fitted.report)
    _tell(fitted, callback)
    if objection := fitted.objection:
        do = "give more rows, try another --cost-model, or leave out the methods that need one"
        return replace(known, refused=EmptyViewError(objection, seen=_cross_validated(fitted), do=do))
    completions = _completions(examples, policy, config, callback)
    for part, mine in (("train", completions[:n]), ("validation", completions[n:])):
        if all(len(each) < 2 for each in mine):
            error = EmptyViewError(
                f"the cost model needs contexts with two completions or more, and the {part} part has none",
                seen=f"{len(mine)} rows, {config.draws} completions sampled for each",
                do="raise --num-samples, or leave out the methods that need a cost model",
            )
            return replace(known, refused=error)
    chosen = sources[fitted.report["kind"]]
    estimated = with_estimates(examples, completions, chosen.of(completions, callback), fitted)
    return replace(known, train=tuple(estimated[:n]), held=tuple(estimated[n:]), model=fitted.model)


@dataclass(frozen=True)
class _Source:
    """Where a kind of cost model has its features from.

    Attributes:
        policy: The base.
        scored: log π_ref and the features of the edit and the response of each example [n].
        tune: Computes features by a tuned adapter; None for those of the base itself.
    """

    policy: Policy
    scored: Sequence[Scored]
    tune: Callable[[Sequence[ContextTree]], Sequence[NDArray[np.float32]]] | None = None

    def of_responses(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """The features of the response of each example [n, F]."""
        rows = zip(examples, self.scored, strict=True)
        return np.stack([one.features[e.completions.of(RESPONSE)] for e, one in rows])

    def of(self, completions: Sequence[Completions], callback: ProgressCallback) -> list[Scored]:
        """log π_ref and the features of all completions of each example; known ones are not read again."""
        found, trees = list(self.scored), dict[int, ContextTree]()
        for i, (texts, one) in enumerate(zip(completions, self.scored, strict=True)):
            if added := texts.tree.continuations[len(one.log_probs) :]:
                trees[i] = ContextTree(texts.tree.context, added)
        scored = _scored(self.policy, list(trees.values()), "features of samples", callback)
        tables = [e.features for e in scored] if self.tune is None else self.tune(list(trees.values()))
        for i, new, table in zip(trees, scored, tables, strict=True):
            log_probs = (*found[i].log_probs, *new.log_probs)
            found[i] = Scored(log_probs, np.concatenate([found[i].features, table]))
        return found


def _sources(
    run: RunFolder,
    examples: Sequence[Example],
    scored: Sequence[Scored],
    costs: NDArray[np.float64],
    policy: Policy,
    config: FitConfig,
    callback: ProgressCallback,
) -> dict[CostModelKind, _Source]:
    """The kinds of cost model to try, each with the source of its features; `costs` are of the train part."""
    kinds: tuple[CostModelKind, ...] = ("ridge", "bootstrap", "tuned")
    kinds = kinds if config.cost_model == "auto" else (config.cost_model,)
    found = {kind: _Source(policy, scored) for kind in kinds}
    if "tuned" not in found:
        return found
    callback.message("tuning features on the costs")
    # Features are tuned on one half of the train part, and the regression on them is fitted on the other.
    first = tuning_rows(len(costs))

    def tune(trees: Sequence[ContextTree]) -> list[NDArray[np.float32]]:
        return tuned_features(policy, examples[:first], costs[:first], trees, config, run.work / "cost_model")

    tables = tune([e.tree for e in examples])
    own = [Scored(one.log_probs, table) for one, table in zip(scored, tables, strict=True)]
    return {**found, "tuned": _Source(policy, own, tune)}


def _scored(
    policy: Policy, trees: Sequence[ContextTree], task: str, callback: ProgressCallback
) -> list[Scored]:
    """log π_ref and the features of the continuations of trees."""
    world = processes(policy.device).num_processes
    found, known = feature_pass(policy, trees, progress=counter(callback, task, len(trees), world))
    total = sum(len(tree.continuations) for tree in trees)
    callback.message(f"{task} {'from the cache' if known else 'computed'}: {total} completions")
    return found


def _completions(
    examples: Sequence[Example], policy: Policy, config: FitConfig, callback: ProgressCallback
) -> list[Completions]:
    """The edit, the response and the sampled completions of each example [n]; says what they are like."""
    limit, drawn = config.longest_response, config.draws * len(examples)
    sampled = sample_completions(
        policy, examples, config.draws, seed=config.seed, max_new_tokens=limit, callback=callback
    )
    cut = sum(not text.finished for texts in sampled for text in texts)
    if drawn and cut == drawn:
        # Nobody would be shown such a text, and the cost model has seen none, so it says little of their
        # cost.
        callback.warn(
            f"all {drawn} sampled completions were cut at {limit} tokens, so none is chosen from: only the "
            "edit and the response are (raise --max-new-tokens)"
        )
        sampled = [()] * len(examples)
    elif cut:
        callback.message(f"{cut} of {drawn} sampled completions were cut at {limit} tokens")
    found = add_sampled(policy, examples, sampled)
    new = sum(len(texts) - len(e.completions) for e, texts in zip(examples, found, strict=True))
    if drawn > cut and new == 0:
        callback.warn(f"all {drawn} sampled completions are what was written anyway: they add no choice")
    return found


def _tell(fitted: FittedCosts, callback: ProgressCallback) -> None:
    """Say how well the cost model predicts; warn where that may be chance."""
    report = fitted.report
    model, length = report["model"], report["length"]
    callback.message(
        f"cost model ({model_name(report)}): R² {_cross_validated(fitted)}; on {model['rows']} validation "
        f"rows {show_number(model['r2'])}, correlation {show_number(model['pearson'])} (by length alone "
        f"{show_number(length['r2'])}, {show_number(length['pearson'])})"
    )
    crossed = report["cross_validated"]
    if fitted.objection is None and crossed["low"] <= 0:
        callback.warn("the cost model may predict nothing: the interval of its R² includes 0")


def _cross_validated(fitted: FittedCosts) -> str:
    """The cross-validated R² of a cost model with its interval, in words."""
    found = fitted.report["cross_validated"]
    if found is None:
        return "not known"
    interval = f"[{found['low']:.2f},{found['high']:.2f}]"
    return f"{found['r2']:.3f} {interval} in {found['contexts']} contexts, cross-validated"
