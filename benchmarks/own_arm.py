"""EditLoop's arm of `train-speed`: its trainer on single steps, its passes over the base, and a whole fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.train_spec import (
    ALPHA,
    BETA,
    LAB,
    LEARNING_RATE,
    NUM_SAMPLES,
    RANK,
    VALIDATION,
    WARM_UP,
    Spec,
    make_policy,
    make_rows,
)

SHARED = {"learning_rate": LEARNING_RATE, "beta": BETA}
"""The hyperparameters of all arms; a method takes those of them that it has."""


def _with_sampled(policy: Any, examples: list[Any], spec: Spec) -> list[Any]:
    """Return examples for RL, with the base's samples on the lab's rows, and else made-up completions."""
    from benchmarks.train_workload import made_up_completions, made_up_costs

    if spec.size in LAB:
        from editloop.lab.grammar import MAX_NEW_TOKENS
        from editloop.offline.cost_model.sampled import add_sampled, sample_completions

        texts = sample_completions(
            policy, examples, NUM_SAMPLES, seed=0, max_new_tokens=MAX_NEW_TOKENS, cache=Path(spec.folder)
        )
        completions = add_sampled(policy, examples, texts)
    else:
        completions = made_up_completions(examples, NUM_SAMPLES)
    return made_up_costs(policy, examples, completions)


def train_steps(spec: Spec, clock: Any) -> dict[str, Any]:
    """Train as `fit` does, with the only evaluation and checkpoint after the last step.

    Returns:
        `tokens`: the distinct tokens of the timed steps' trees.
    """
    from editloop.offline import (
        METHODS,
        EditTrainer,
        FitConfig,
        Trial,
        make_examples,
        reference_pass,
        training_arguments,
    )
    from editloop.policy import LoraSettings, attach_adapter

    rows, batch = make_rows(spec)
    policy, (method,) = make_policy(spec), spec.methods
    examples = list(make_examples(rows, policy.encoder).examples)
    model = METHODS.get(method).hyperparameters
    values = {name: value for name, value in SHARED.items() if name in model.model_fields}
    trial = Trial(METHODS.get(method), model.model_validate(values))
    if "cost_model" in trial.needs:
        examples = _with_sampled(policy, examples, spec)
    elif "reference" in trial.needs:
        examples, _ = reference_pass(policy, examples, cache=Path(spec.folder))
    policy = attach_adapter(policy, LoraSettings(rank=RANK, alpha=ALPHA), seed=0)
    config = FitConfig(batch_size=batch, epochs=1, evaluations=1)
    train = trial.method.completions(examples, trial.hyperparameters)
    trees = [each.tree for each in train]
    arguments = training_arguments(config, Path(spec.folder), policy, trees, learning_rate=LEARNING_RATE)
    EditTrainer(
        policy=policy,
        trial=trial,
        config=config,
        arguments=arguments,
        train=train,
        validate=lambda: {"loss": 0.0},
        callbacks=[clock],
        shuffle=False,
    ).train()
    timed = [e.sampled.tree if e.sampled else e.tree for e in examples[WARM_UP * batch :]]
    return {"tokens": sum(len(tree.layout) for tree in timed)}


def time_passes(spec: Spec) -> dict[str, Any]:
    """Return the seconds of the reference pass, of the same pass with features, and of the cost model.

    The time of the cost model is that of fitting it and predicting all costs.
    """
    import numpy as np

    from editloop.edits import get_cost
    from editloop.offline import feature_pass, fit_cost_model, make_examples, reference_pass
    from editloop.policy import context_columns

    rows, _ = make_rows(spec)
    policy = make_policy(spec)
    examples = make_examples(rows, policy.encoder).examples
    trees = [e.tree for e in examples]
    policy.log_probs(trees[:WARM_UP])
    folder, seconds = Path(spec.folder), dict[str, float]()

    def timed(work: Callable[[], Any]) -> tuple[float, Any]:
        start = time.perf_counter()
        found = work()
        return time.perf_counter() - start, found

    # A plain pass before and one after that with features, so that a drift of the machine's speed cancels.
    before, _ = timed(lambda: reference_pass(policy, examples, cache=folder / "before"))
    seconds["features"], (scored, _) = timed(lambda: feature_pass(policy, trees, cache=folder))
    after, _ = timed(lambda: reference_pass(policy, examples, cache=folder / "after"))
    seconds["reference"] = (before + after) / 2
    costs = get_cost()([e.response for e in examples], [e.edit for e in examples])
    features = np.stack([each.features[1] for each in scored])
    width = context_columns(features.shape[1])
    fitting, model = timed(lambda: fit_cost_model(features, costs, context=width))
    predicting, _ = timed(lambda: model.predict(np.concatenate([each.features for each in scored])))
    seconds["cost_model"] = fitting + predicting
    return {**seconds, "rows": len(rows)}


def train_whole(spec: Spec) -> None:
    """Run one `fit` of all methods, from a log and a base's folder to a run folder."""
    from benchmarks.train_workload import workload
    from editloop.edits import read_log
    from editloop.offline import METHODS, FitConfig, fit

    assert spec.log is not None and spec.base is not None
    config = FitConfig(
        methods=spec.methods,
        hyperparameters={
            method: {
                name: (value,)
                for name, value in SHARED.items()
                if name in METHODS.get(method).hyperparameters.model_fields
            }
            for method in spec.methods
        },
        batch_size=workload(spec.size)[1],
        epochs=1,
        evaluations=1,
        validation=VALIDATION,
        validation_samples=0,
    )
    fit(read_log(spec.log), spec.base, Path(spec.folder) / "run", config, report=False)
