"""Held-out figures of a run's policies on a log that they were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from editloop.edits import Log, Record, get_cost
from editloop.errors import EmptyViewError
from editloop.listener import Listener, Silent, counter
from editloop.offline.alarms import check_samples
from editloop.offline.examples import make_examples
from editloop.offline.pricing import told_costs
from editloop.offline.reference import reference_pass
from editloop.offline.score import score
from editloop.policy import Policy, RunFolder, processes

__all__ = ["evaluate"]


def evaluate(
    run: RunFolder,
    log: Log | Sequence[Record],
    *,
    base: Policy | None = None,
    samples: int = 0,
    seed: int = 0,
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Likelihood of the edits and preference accuracy, for the base and every policy of a run.

    Args:
        run: A run folder with its policies.
        log: Rows that the run did not train on; the caller sees to that.
        base: The run's base, if it is loaded already.
        samples: Responses to sample for each policy, for their cost against the logged edits.
        seed: Of the sampling.
        listener: Hears of progress.

    Returns:
        `rows`, `pairs` and `counts` of the log, and `policies`: for each name the figures of
        `Scores.figures`, and `sampled` where samples were asked for. `mixture` has the weights of a fitted
        mixture, `cost_model` how well the run's cost model tells the costs, where there are such.

    Raises:
        EmptyViewError: No row was observed, or none could be encoded.
        RunError: The run is unusable.
    """
    listener = listener or Silent()
    config = run.manifest()["config"]
    base = base or run.load_base()
    data = make_examples(tuple(log), base.encoder)
    if not data.examples:
        raise EmptyViewError(
            "no row to evaluate on", seen=dict(data.counts), do="give edited or accepted rows"
        )
    for reason, count in data.counts.items():
        listener.say(f"  {count} rows: {reason}")
    rows, world = len(data.examples), processes(base.device).num_processes
    held, _ = reference_pass(base, data.examples, progress=counter(listener, "reference", rows, world))
    cost = get_cost(config["cost"], tokenize=base.encoder.tokenize)
    policies: dict[str, Any] = {}
    for name in run.arm_names():
        with run.policy(name, base) as policy:
            chosen = _chosen(run, name)
            scores = score(policy, held, progress=counter(listener, name, rows, world))
            figures: dict[str, Any] = dict(scores.figures(chosen.get("beta", config["beta"]["dpo"][0])))
            # A policy that diverged has no distribution to sample from.
            shown = held[:samples] if np.isfinite(scores.chosen).all() else []
            sampled = check_samples(
                policy,
                shown,
                cost,
                seed=seed,
                max_new_tokens=config["max_new_tokens"],
                progress=counter(listener, f"{name}, samples", len(shown)),
            )
            policies[name] = figures | ({"sampled": sampled.to_json()} if sampled else {})
    pairs = sum(e.is_pair for e in held)
    mixture = run.manifest().get("mixture")
    return {
        "rows": len(held),
        "pairs": pairs,
        "counts": dict(data.counts),
        "cost": cost.name,
        "policies": policies,
        **({"mixture": {key: mixture[key] for key in ("by", "weights", "errors")}} if mixture else {}),
        **({"cost_model": asdict(told_costs(run, base, held, cost))} if run.cost_model.is_dir() else {}),
    }


def _chosen(run: RunFolder, name: str) -> dict[str, Any]:
    """The candidate that a policy was chosen as; empty for the base."""
    policy = run.manifest()["policies"].get(name)
    return policy["candidates"][policy["chosen"]] if policy else {}
