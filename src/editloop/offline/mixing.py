"""Fit the mixture of a run's policies on the validation part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from editloop.edits import Cost
from editloop.edits.cost import charge_unfinished
from editloop.offline.config import FitConfig
from editloop.offline.cost_model.saved import predicted_costs
from editloop.offline.examples import EDIT, Example
from editloop.offline.mixture import Mixture, mix_by_cost, mix_by_likelihood
from editloop.offline.reference import on_all_processes
from editloop.offline.trial import finished_result
from editloop.policy import Policy, RunFolder, Sample

__all__ = ["mix_policies"]


def mix_policies(
    run: RunFolder, policy: Policy, config: FitConfig, held: Sequence[Example], cost: Cost
) -> Mixture | None:
    """Fit the weights of a mixture of a run's policies.

    A policy that diverged, so that the likelihood of an edit is not finite, is left out.

    Args:
        run: The run folder; all its policies are trained.
        policy: The base.
        config: The fit's configuration; `mixture` says what the weights are fitted by.
        held: The validation examples.
        cost: The cost Δ.

    Returns:
        The mixture; None if all policies diverged.
    """
    log_probs: dict[str, list[float]] = {}
    responses: dict[str, list[Sample]] = {}
    shown = held[: config.validation_samples]
    for name in config.methods:
        kept = _result(run, name, config)
        scores = _edit_log_probs(run, name, policy, kept, held)
        if not np.isfinite(scores).all():
            continue
        log_probs[name] = scores
        if config.mixture == "cost":
            responses[name] = _responses(run, name, policy, config, kept, shown)
    if not log_probs:
        return None
    if config.mixture == "likelihood":
        return mix_by_likelihood(log_probs, seed=config.seed)
    costs: dict[str, Sequence[float]] = {}
    edits = [e.edit for e in shown]
    for name, samples in responses.items():
        texts = [sample.text for sample in samples]
        if "cost_model" in config.needs:
            # The contexts were encoded before, so no tree is None.
            made = [policy.encoder.tree(e.context, [text]) for e, text in zip(shown, texts, strict=True)]
            trees = [tree for tree in made if tree is not None]
            found = predicted_costs(run, policy, trees)[0]
        else:
            found = cost(texts, edits)
        costs[name] = charge_unfinished(cost, found, [s.finished for s in samples], edits).tolist()
    return mix_by_cost(costs, seed=config.seed)


def _responses(
    run: RunFolder,
    name: str,
    policy: Policy,
    config: FitConfig,
    kept: Mapping[str, Any],
    shown: Sequence[Example],
) -> list[Sample]:
    """A response of a policy of the run to each context [n]: those that its trial has sampled, if it has."""
    known = [Sample(**each) for each in kept.get("responses", [])]
    if len(known) == len(shown):
        return known
    contexts = [e.context for e in shown]
    with run.policy(name, policy) as trained:
        return trained.sample(contexts, seed=config.seed, max_new_tokens=config.longest_response)


def _edit_log_probs(
    run: RunFolder, name: str, policy: Policy, kept: Mapping[str, Any], held: Sequence[Example]
) -> list[float]:
    """log π_k(y'|x) of the validation examples under a policy of the run [n]."""
    known: list[float] = kept.get("edit_log_probs", [])
    if len(known) == len(held):
        return known
    trees = [e.completions.only(EDIT).tree for e in held]
    with run.policy(name, policy) as trained:
        return [each[0] for each in on_all_processes(policy.device, trees, trained.log_probs)]


def _result(run: RunFolder, name: str, config: FitConfig) -> Mapping[str, Any]:
    """What the chosen trial of a method has kept; one that an older version finished has kept less."""
    trial = config.trials(name)[run.manifest().policies[name].chosen]
    return finished_result(run.work / name / trial.name) or {}
